"""Precision, recall and F1 of boxes as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sal.metrics.base import ImageMean, placed
from lightning_sal.metrics.functional.box_iou import box_iou
from lightning_sal.metrics.functional.detection import count_matches, precision_recall_f1


class BoxPrecisionRecall(ImageMean):
    r"""Precision, recall and F1 of boxes without scores, over all images of all ranks.

    .. math:: P = \frac{c}{M}, \quad R = \frac{c}{I}, \quad F_1 = \frac{2 c}{M + I}

    for M predicted and I true boxes of an image, and c the most pairs of one of each with IoU >= `iou_threshold`
    (Hungarian, so the order of the boxes does not matter). `compute` gives float64 scalars: `precision`, `recall` and `f1`,
    means over images, where an image without any box on either side counts 1, and one with boxes on one side alone 0; and
    `precision_pooled`, `recall_pooled`, `f1_pooled`, of the sums of c, M and I over all images. NaN if no rank has seen an
    image; the pooled ones also where there is no box to divide by.

    Args:
        iou_threshold: The least IoU of a pair, in (0, 1].
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import BoxPrecisionRecall
        >>> box, none = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.zeros(0, 4)
        >>> metric = BoxPrecisionRecall()
        >>> metric.update([box, torch.cat([box, box + 50]), none], [box, box, none])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
        {'precision': 0.833, 'recall': 1.0, 'f1': 0.889,
         'precision_pooled': 0.667, 'recall_pooled': 1.0, 'f1_pooled': 0.8}
    """

    values = (("precision", ()), ("recall", ()), ("f1", ()), ("matches", ()), ("predicted", ()), ("true", ()))

    def __init__(self, iou_threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must lie in (0, 1], not {iou_threshold}")
        self.iou_threshold = iou_threshold

    def update(self, preds: Tensor | Sequence[Tensor | None], target: Tensor | Sequence[Tensor]) -> None:
        """Add one image or several; nothing is added where one of them is refused.

        Args:
            preds: (M, 4) x0, y0, x1, y1, M >= 0, or a list of such, one an image; None where an answer cannot be used: all
                of its values are 0, whatever is true.
            target: (I, 4), or a list of such, likewise; I >= 0.

        Raises:
            ValueError: If a shape is not (N, 4), or a coordinate is not finite; the message names image and box.
        """
        preds, target = placed(self.device, preds, target)
        if isinstance(preds, Tensor) and isinstance(target, Tensor):
            preds, target = [preds], [target]
        if len(preds) != len(target):
            raise ValueError(f"{len(preds)} preds and {len(target)} targets: there must be one target for each")
        counts = torch.zeros(3, len(target), dtype=torch.float64)
        for index, (pred, true) in enumerate(zip(preds, target, strict=True)):
            try:
                iou = box_iou(true[:0] if pred is None else pred, true)
            except ValueError as error:
                raise ValueError(f"image {index}: {error}") from None
            counts[:, index] = torch.tensor([count_matches(iou, self.iou_threshold), *iou.shape])
        usable = torch.tensor([pred is not None for pred in preds], dtype=torch.float64)
        found = torch.cat([precision_recall_f1(*counts) * usable, counts]).to(self.device)
        self.add({name: value for (name, _), value in zip(self.values, found, strict=True)})

    def compute(self) -> dict[str, Tensor]:
        """`precision`, `recall`, `f1`, and the three `..._pooled`."""
        matches, predicted, true = (self.summed(name) for name in ("matches", "predicted", "true"))
        means = {name: self.mean(name) for name in ("precision", "recall", "f1")}
        return means | {
            "precision_pooled": matches / predicted,
            "recall_pooled": matches / true,
            "f1_pooled": 2 * matches / (predicted + true),
        }
