"""How well objects are counted, and whether it is told that there is none: torchmetrics metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sal.metrics.base import ImageMean


class CountAccuracy(ImageMean):
    r"""How often a count is right, and by how much it is off, over all samples of all ranks.

    .. math:: \text{accuracy} = \frac{1}{B} \sum_b [M_b = I_b], \quad \text{error} = \frac{1}{B} \sum_b |M_b - I_b|

    for M counted and I true objects. `compute` gives float64 scalars: `count_accuracy`, in [0, 1], and `count_error`, in
    objects, less is better. NaN if no rank has seen a sample.

    Args:
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> from lightning_sal.metrics import CountAccuracy
        >>> metric = CountAccuracy()
        >>> metric.update([3, 7, None, 0], [3, 5, 0, 0])
        >>> metric.compute()
        {'count_accuracy': tensor(0.5000, dtype=torch.float64), 'count_error': tensor(0.5000, dtype=torch.float64)}
    """

    values = (("count_accuracy", ()), ("count_error", ()))

    def update(self, preds: Tensor | Sequence[int | None], target: Tensor | Sequence[int]) -> None:
        """Add B samples; nothing is added where one of them is refused.

        Args:
            preds: (B,) whole numbers >= 0; None where an answer cannot be used: it counts 0 objects, and is not right even
                where that is the truth.
            target: (B,) whole numbers >= 0.

        Raises:
            ValueError: If they are not as many, or one is no such number; the message names the sample.
        """
        counted, true, usable = as_counts(preds, target, self.device)
        gap = (counted - true).abs()
        self.add({"count_accuracy": (gap == 0) & usable, "count_error": gap})

    def compute(self) -> dict[str, Tensor]:
        """`count_accuracy` and `count_error`."""
        return {name: self.mean(name) for name, _ in self.values}


class TargetAccuracy(ImageMean):
    """Whether it is told that there is nothing to find, as N-acc and T-acc of gRefCOCO have it, over all ranks.

    `compute` gives float64 scalars: `no_target_accuracy`, the share of samples without a target that are answered by
    nothing, and `target_accuracy`, the share of samples with targets that are answered by something; each NaN if no rank has
    seen such a sample. Liu et al. 2023 (GRES, arXiv:2306.00968).

    Args:
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> from lightning_sal.metrics import TargetAccuracy
        >>> metric = TargetAccuracy()
        >>> metric.update([0, 2, None, 1, 0], [0, 0, 0, 3, 1])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'no_target_accuracy': 0.333, 'target_accuracy': 0.5}
    """

    values = (("without", ()), ("without_right", ()), ("with", ()), ("with_right", ()))

    def update(self, preds: Tensor | Sequence[int | None], target: Tensor | Sequence[int]) -> None:
        """Add B samples; nothing is added where one of them is refused.

        Args:
            preds: (B,) how many objects are answered, whole numbers >= 0; None where an answer cannot be used: it is wrong,
                whatever is true.
            target: (B,) how many targets there are, likewise.

        Raises:
            ValueError: If they are not as many, or one is no such number; the message names the sample.
        """
        answered, true, usable = as_counts(preds, target, self.device)
        without = true == 0
        right = ((answered == 0) == without) & usable
        self.add(
            {"without": without, "without_right": without & right, "with": ~without, "with_right": ~without & right}
        )

    def compute(self) -> dict[str, Tensor]:
        """`no_target_accuracy` and `target_accuracy`."""
        return {
            "no_target_accuracy": self.summed("without_right") / self.summed("without"),
            "target_accuracy": self.summed("with_right") / self.summed("with"),
        }


def as_counts(
    preds: Tensor | Sequence[int | None], target: Tensor | Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts of B samples, (B,) float64 each with 0 for None, and where the first are known, (B,) bool.

    Raises:
        ValueError: If they are not as many, or one is no whole number >= 0.
    """
    ours, theirs = (each.tolist() if isinstance(each, Tensor) else list(each) for each in (preds, target))
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} preds and {len(theirs)} targets: there must be one target for each")
    for index, pair in enumerate(zip(ours, theirs, strict=True)):
        for name, value in zip(("preds", "target"), pair, strict=True):
            if (value is None and name == "target") or (value is not None and (value < 0 or value % 1)):
                raise ValueError(f"{name}[{index}] is {value}; counts are whole numbers from 0 on")
    usable = torch.tensor([value is not None for value in ours], dtype=torch.bool, device=device)
    counted, true = (
        torch.tensor([value or 0 for value in each], dtype=torch.float64, device=device) for each in (ours, theirs)
    )
    return counted, true, usable
