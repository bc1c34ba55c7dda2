"""The structure-measure as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics.functional.inputs import as_map_pair
from lightning_sal.metrics.functional.structure import structure_scores
from lightning_sal.metrics.images import map_scores


class StructureMeasure(Metric):
    r"""Structure-measure (Fan et al. 2017, arXiv:1708.00786), averaged over all images of all ranks.

    .. math:: S = \max(0, \tfrac{1}{2} S_o + \tfrac{1}{2} S_r)

    The terms are those of `lightning_sal.metrics.functional.structure_measure`. `update` takes maps and ground truths
    as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image; `compute` gives a float64 scalar,
    NaN if no rank has seen an image.

    Args:
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import StructureMeasure
        >>> target = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)
        >>> metric = StructureMeasure()
        >>> metric.update(target, target)
        >>> metric.update([torch.full((2, 5), 0.25)], [torch.zeros(2, 5, dtype=torch.bool)])
        >>> metric.compute()
        tensor(0.8750, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    # Named apart from those of other metrics: a MetricCollection merges metrics whose states look alike.
    structure_sum: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("structure_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> None:
        """Add images; nothing is added where one of them is refused.

        Args:
            preds: (B, H, W) or B tensors of (H, W): bool, or numbers in [0, 1].
            target: Likewise, each as large as its map; True where > 0.5.

        Raises:
            ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.
        """
        scores = map_scores(lambda *pair: structure_scores(*as_map_pair(*pair)), preds, target)
        self.structure_sum += scores.sum()
        self.total += len(scores)

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.structure_sum / self.total

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or several, by default what `compute` gives; returns figure and axes."""
        return self._plot(val, ax)
