"""The instance-aligned structure-measure as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics.functional.instance_structure import instance_score
from lightning_sal.metrics.images import one_by_one


class InstanceAlignedStructureMeasure(Metric):
    r"""Instance-aligned structure-measure (IASM), averaged over all images of all ranks.

    .. math:: \text{IASM} = \frac{1}{L} \sum_{(m, i)} S(P_m, G_i), \quad L = M + I - \#\text{matched}

    S is the structure-measure (Fan et al. 2017, arXiv:1708.00786); how instances are paired is said at
    `lightning_sal.metrics.functional.instance_aligned_structure_measure`. `update` takes the predicted (M, H, W) and
    the true instances (I, H, W) of one image, or lists of them, one entry an image; M, I, H and W may differ from image
    to image. `compute` gives a float64 scalar, NaN if no rank has seen an image.

    Args:
        iou_threshold: The least IoU of a matched pair, in [0, 1].
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import InstanceAlignedStructureMeasure
        >>> target = torch.zeros(2, 5, 5, dtype=torch.bool)
        >>> target[0, :2, :2] = True
        >>> target[1, 2:4, 2:4] = True
        >>> metric = InstanceAlignedStructureMeasure()
        >>> metric.update([target.flip(0), target[:1]], [target, target])
        >>> metric.compute()
        tensor(0.9000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    # Named apart from those of other metrics: a MetricCollection merges metrics whose states look alike.
    instance_structure_sum: Tensor
    total: Tensor

    def __init__(self, iou_threshold: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.iou_threshold = iou_threshold
        self.add_state("instance_structure_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> None:
        """Add one image or several; nothing is added where one of them is refused.

        Args:
            preds: (M, H, W), or a list of such, one an image: bool, or numbers in [0, 1], True where > 0.5; M >= 0.
            target: (I, H, W), or a list of such, likewise; I >= 0.

        Raises:
            ValueError: If sizes differ, or a value is NaN or outside [0, 1]; the message names image and instance.
        """
        if isinstance(preds, Tensor) and isinstance(target, Tensor):
            preds, target = [preds], [target]
        scores = one_by_one(lambda pred, truth: instance_score(pred, truth, self.iou_threshold), preds, target)
        self.instance_structure_sum += scores.sum()
        self.total += len(scores)

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.instance_structure_sum / self.total

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or several, by default what `compute` gives; returns figure and axes."""
        return self._plot(val, ax)
