"""Insertion and deletion as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_sal.metrics.base import ImageMean, placed
from lightning_sal.metrics.functional.faithfulness import area_under_curve, normalised


class FaithfulnessCurves(NamedTuple):
    """Mean scores over the share of pixels, on the scale of blank and whole picture.

    Attributes:
        shares: N shares of pixels from 0 to 1.
        deletion: (N,) without the most salient pixels, from 100 to 0.
        insertion: (N,) with the most salient pixels alone, from 0 to 100.
    """

    shares: tuple[float, ...]
    deletion: Tensor
    insertion: Tensor


class InsertionDeletion(ImageMean):
    """How a response's score changes as the most salient pixels leave the picture or enter it, over all samples.

    Scores lie on the scale on which the blank picture has 0 and the whole picture 100, each sample's own. `compute` gives
    float64 scalars: `deletion_5` and the like, the mean curve at each of `shares` in percent (deletion is better lower,
    insertion higher), `deletion_auc` and `insertion_auc`, the areas under the curves over shares from 0 to 1, and
    `undefined`, the number of samples that are left out because blank and whole picture score alike. NaN if no rank has
    seen a sample that has a scale. The mean is not bounded: a sample whose picture hardly matters weighs much.

    The scores of a sample are taken at the shares `points`: `shares`, and those that cut [0, 1] into `steps`; the ends of
    the curves are the blank and the whole picture. `functional.perturbed` makes the pictures. Petsiuk et al. 2018 (RISE,
    arXiv 1806.07421).

    Args:
        shares: Shares of pixels that are reported, ascending, in (0, 1).
        steps: Equal steps of the curves, >= 1; more make the areas more exact, each costs a score a curve.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import InsertionDeletion
        >>> metric = InsertionDeletion(shares=(0.5,), steps=1)
        >>> metric.points
        (0.5,)
        >>> deletion, insertion = torch.tensor([[-3.5]]), torch.tensor([[-2.0]])
        >>> metric.update(deletion, insertion, blank=torch.tensor([-4.0]), whole=torch.tensor([-2.0]))
        >>> {name: value.item() for name, value in metric.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
        {'deletion_50': 25.0, 'insertion_50': 100.0, 'deletion_auc': 37.5, 'insertion_auc': 75.0, 'undefined': 0.0}
    """

    higher_is_better = None
    plot_lower_bound = None
    plot_upper_bound = None
    values = ()  # their shapes depend on the arguments

    undefined: Tensor

    def __init__(self, shares: Sequence[float] = (0.05, 0.15, 0.3), steps: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not shares or not all(0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)) or steps < 1:
            raise ValueError(f"shares must ascend in (0, 1) and steps be >= 1, not {list(shares)} and {steps}")
        self.shares, self.steps = tuple(shares), steps
        between = (step / steps for step in range(1, steps))
        near = {round(share, 9): share for share in (*between, *shares)}  # 3 / 20 and 0.15 are one
        self.points = tuple(near[share] for share in sorted(near))
        for name in ("deletion", "insertion"):
            self.add_sum(name, (len(near),))
        self.add_state("undefined", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, deletion_scores: Tensor, insertion_scores: Tensor, blank: Tensor, whole: Tensor) -> None:
        """Add B samples; nothing is added where one of them is refused.

        Args:
            deletion_scores: (B, N) scores without the most salient pixels, at each of the N `points`; of a response its
                mean log-likelihood.
            insertion_scores: (B, N) scores with the most salient pixels alone.
            blank: (B,) scores with the blank picture.
            whole: (B,) scores with the whole picture.

        Raises:
            ValueError: If shapes differ from these, or a score is not finite; the message names the sample.
        """
        samples = (whole.numel(), len(self.points))
        given = {
            "deletion_scores": deletion_scores,
            "insertion_scores": insertion_scores,
            "blank": blank,
            "whole": whole,
        }
        for (name, scores), shape in zip(given.items(), (samples, samples, samples[:1], samples[:1]), strict=True):
            if scores.shape != shape:
                raise ValueError(f"{name} {tuple(scores.shape)} must have the shape {shape}: samples, and `points`")
        deletion, insertion, blank, whole = (scores.detach() for scores in placed(self.device, *given.values()))
        finite = torch.cat([deletion, insertion, blank[:, None], whole[:, None]], 1).isfinite().all(1)
        if not finite.all():
            raise ValueError(f"sample {int(finite.int().argmin())} has a score that is not finite")
        curves = [normalised(scores, blank, whole) for scores in (deletion, insertion)]
        defined = torch.cat(curves, 1).isfinite().all(1)
        self.add({name: curve[defined] for name, curve in zip(("deletion", "insertion"), curves, strict=True)})
        self.undefined = self.undefined + (~defined).sum()

    def compute(self) -> dict[str, Tensor]:
        """The mean curves at the shares that are reported, the areas under them, and the samples left out."""
        mean = self.curves()
        at = [self.points.index(share) + 1 for share in self.shares]
        curves = {"deletion": mean.deletion, "insertion": mean.insertion}
        named = {
            f"{name}_{100 * share:g}": curve[place]
            for name, curve in curves.items()
            for share, place in zip(self.shares, at, strict=True)
        }
        areas = {f"{name}_auc": area_under_curve(curve, mean.shares) for name, curve in curves.items()}
        return named | areas | {"undefined": self.undefined}

    def curves(self) -> FaithfulnessCurves:
        """The mean curves with their ends, over the samples of this rank."""
        deletion = pad(pad(self.mean("deletion"), (1, 0), value=100.0), (0, 1), value=0.0)
        insertion = pad(pad(self.mean("insertion"), (1, 0), value=0.0), (0, 1), value=100.0)
        return FaithfulnessCurves((0.0, *self.points, 1.0), deletion, insertion)
