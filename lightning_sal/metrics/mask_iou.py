"""gIoU and cIoU as a torchmetrics metric."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.mask_iou import overlap_and_union


class MaskIoU(MapMetric):
    """gIoU and cIoU of masks, as papers on referring segmentation report them, over all images of all ranks.

    `compute` gives float64 scalars: `giou`, the mean over images of their IoU, where two empty masks count 1, and `ciou`,
    the pixels in both masks over those in either, each summed over all images, so that large objects weigh more.
    `update` takes masks as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image; soft maps are
    True where > 0.5. NaN if no rank has seen an image; `ciou` also if no mask holds a pixel.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import MaskIoU
        >>> metric = MaskIoU()
        >>> metric.update(torch.tensor([[[1, 1, 0]], [[0, 0, 0]]]), torch.tensor([[[1, 0, 0]], [[0, 0, 0]]]))
        >>> metric.compute()
        {'giou': tensor(0.7500, dtype=torch.float64), 'ciou': tensor(0.5000, dtype=torch.float64)}
    """

    values = (("iou", ()), ("overlap", ()), ("union", ()))

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return overlap_and_union(preds > 0.5, target)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        overlap, union = statistics
        return {"iou": torch.where(union > 0, overlap / union.clamp(min=1), 1.0), "overlap": overlap, "union": union}

    def compute(self) -> dict[str, Tensor]:
        """`giou` and `ciou`."""
        return {"giou": self.mean("iou"), "ciou": self.mean("overlap") / self.mean("union")}
