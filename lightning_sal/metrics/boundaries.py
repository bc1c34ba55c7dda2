"""Boundary IoU and multi-scale IoU as torchmetrics metrics."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_sal.metrics.base import MapMean
from lightning_sal.metrics.functional.boundaries import RATIO, boundary_ious, multi_scale_ious


class BoundaryIoU(MapMean):
    """Boundary IoU of masks (Cheng et al. 2021, arXiv:2103.16562), averaged over all images of all ranks.

    The value of an image is that of `lightning_sal.metrics.functional.boundary_iou`. `update` takes masks as (B, H, W), or
    as lists of (H, W) whose sizes may differ from image to image; soft maps are True where > 0.5. `compute` gives a float64
    scalar, NaN if no rank has seen an image.

    Args:
        dilation_ratio: Width of a boundary as a share of the image's diagonal, > 0; the authors' is 0.02.
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import BoundaryIoU
        >>> target = torch.zeros(1, 9, 9)
        >>> target[:, 2:7, 2:7] = 1
        >>> metric = BoundaryIoU()
        >>> metric.update(torch.cat([target, target.roll(1, 2)]), torch.cat([target, target]))
        >>> metric.compute()
        tensor(0.6667, dtype=torch.float64)
    """

    values = (("boundary_iou", ()),)

    def __init__(self, dilation_ratio: float = RATIO, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(normalize, **kwargs)
        if not dilation_ratio > 0:
            raise ValueError(f"dilation_ratio must be > 0, not {dilation_ratio}")
        self.dilation_ratio = dilation_ratio

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (boundary_ious(preds, target, self.dilation_ratio),)


class MultiScaleIoU(MapMean):
    """Multi-scale IoU of masks (Ahmadzadeh et al. 2021), averaged over all images of all ranks.

    The value of an image is that of `lightning_sal.metrics.functional.multi_scale_iou`. `update` takes masks as (B, H, W),
    or as lists of (H, W) whose sizes may differ from image to image; soft maps are True where > 0.5. `compute` gives a
    float64 scalar, NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import MultiScaleIoU
        >>> target = torch.zeros(1, 32, 32)
        >>> target[:, 4:20, 4:20] = 1
        >>> metric = MultiScaleIoU()
        >>> metric.update(torch.cat([target, target.roll((2, 2), (1, 2))]), torch.cat([target, target]))
        >>> metric.compute()
        tensor(0.9216, dtype=torch.float64)
    """

    values = (("multi_scale_iou", ()),)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (multi_scale_ious(preds, target),)
