"""gIoU and cIoU as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.mask_iou import overlap_and_union


class MaskIoU(MapMetric):
    """gIoU and cIoU of masks, as papers on referring segmentation report them, over all images of all ranks.

    `compute` gives float64 scalars: `giou`, the mean over images of their IoU, where two empty masks count 1, and `ciou`,
    the pixels in both masks over those in either, each summed over all images, so that large objects weigh more.
    `update` takes masks as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image; soft maps are
    True where > 0.5. In a list None stands for an answer that cannot be used, as one that is no answer or a mask of another
    size: its IoU is 0, also where the true mask is empty, and its union the area of that. NaN if no rank has seen an image;
    `ciou` also if no mask holds a pixel.

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

    def per_image(
        self, preds: Tensor | Sequence[Tensor | None], target: Tensor | Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """See `MapMetric.per_image`; None counts as an empty mask that is never right."""
        if isinstance(preds, Tensor) or all(pred is not None for pred in preds):
            return super().per_image(preds, target)  # type: ignore[arg-type]
        known = [torch.zeros_like(true) if pred is None else pred for pred, true in zip(preds, target, strict=True)]
        values = super().per_image(known, target)
        failed = torch.tensor([pred is None for pred in preds], device=self.device)
        return values | {"iou": values["iou"].masked_fill(failed, 0.0)}

    def update(self, preds: Tensor | Sequence[Tensor | None], target: Tensor | Sequence[Tensor]) -> None:
        """See `MapMetric.update`; `preds` may hold None in a list."""
        self.add(self.per_image(preds, target))

    def compute(self) -> dict[str, Tensor]:
        """`giou` and `ciou`."""
        return {"giou": self.mean("iou"), "ciou": self.mean("overlap") / self.mean("union")}
