"""Average precision of boxes as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_sal.metrics.average_precision import AveragePrecision, by_image
from lightning_sal.metrics.functional.box_iou import box_iou


class BoxAveragePrecision(AveragePrecision):
    r"""Average precision of boxes as COCO evaluation defines it, over all images of all ranks, all boxes as one class.

    .. math:: \text{AP} = \frac{1}{10} \sum_{t \in \{0.5, 0.55, ..., 0.95\}} \text{AP}_t, \quad
        \text{AP}_t = \frac{1}{101} \sum_{r \in \{0, 0.01, ..., 1\}} \max_{r' \ge r} P_t(r')

    where predictions are matched to the boxes of their image from the highest score down, at `functional.box_iou` >= t.
    `compute` gives float64 scalars: `ap`, `ap50` and `ap75`; NaN if no rank has seen a true box.

    Boxes of a language model have no score: Dr. Seg takes the share of the image that each covers,
    `functional.area_shares`. Without scores all are 1, and AP is the precision times the share of recall points reached.

    It differs from COCO's own in two points. COCO averages AP over its categories; here one question's boxes are pooled with
    all others', so frequent categories weigh more. Of equal scores COCO takes the images in their order; here they enter
    together, which is the least value that any order gives. Each box takes 18 bytes until `compute`.

    Args:
        max_detections: Boxes of an image that count, those with the highest scores; COCO takes 100.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import BoxAveragePrecision
        >>> target = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
        >>> preds = torch.tensor([[0.0, 0.0, 10.0, 8.0], [40.0, 0.0, 50.0, 10.0]])  # IoU 0.8, and a false alarm
        >>> metric = BoxAveragePrecision()
        >>> metric.update(preds, target, torch.tensor([0.9, 0.8]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'ap': 0.353, 'ap50': 0.505, 'ap75': 0.505}
    """

    def __init__(self, max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__((0.5, 0.75), max_detections, **kwargs)

    def overlaps(self, preds: Sequence[Any], target: Sequence[Any], crowd: Sequence[Tensor | None]) -> list[Tensor]:
        """IoU of boxes (M, 4) and (I, 4), x0, y0, x1, y1 -> (M, I)."""
        return by_image(box_iou, preds, target, crowd)

    def compute(self) -> dict[str, Tensor]:
        """`ap`, `ap50` and `ap75`, as COCO evaluation sums up."""
        values = super().compute()
        return {name: values[name] for name in ("ap", "ap50", "ap75")}
