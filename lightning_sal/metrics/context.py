"""The context measure as a torchmetrics metric."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.metrics.base import MapMean
from lightning_sal.metrics.functional.context import context_measures


class ContextMeasure(MapMean):
    """Context measure (Wang et al. 2025, arXiv:2512.07076), averaged over all images of all ranks.

    The measure of an image is that of `lightning_sal.metrics.functional.context_measure`. `update` takes maps and ground
    truths as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image; `compute` gives a float64 scalar,
    NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import ContextMeasure
        >>> target = torch.zeros(1, 20, 20)
        >>> target[:, 5:15, 5:15] = 1
        >>> metric = ContextMeasure()
        >>> metric.update(torch.cat([target, 1 - target]), torch.cat([target, target]))
        >>> metric.compute()
        tensor(0.4070, dtype=torch.float64)
    """

    values = (("context", ()),)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (context_measures(preds, target),)
