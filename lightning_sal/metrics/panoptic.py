"""Panoptic quality and F1 of instances as torchmetrics metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sal.metrics.base import InstanceMean
from lightning_sal.metrics.functional.mask_iou import instance_iou
from lightning_sal.metrics.functional.panoptic import check_threshold, f1_of, panoptic_counts, qualities


class InstanceOverlapMetric(InstanceMean):
    """Means over images, of what follows from the IoU of their instances.

    Args:
        kwargs: Those of `torchmetrics.Metric`.
    """

    @abstractmethod
    def of_iou(self, iou: Tensor) -> Tensor:
        """The values of an image, (number of `names`,) float64, from the IoU (M, I) of its instances."""

    def of_image(self, preds: Tensor, target: Tensor) -> Tensor:
        return self.of_iou(instance_iou(preds, target))


class PanopticQuality(InstanceOverlapMetric):
    r"""Panoptic quality (Kirillov et al. 2019, arXiv:1801.00868) of instances without classes, over all images of all ranks.

    .. math:: \text{PQ} = \text{SQ} \cdot \text{RQ}, \quad \text{SQ} = \frac{\sum_{TP} \text{IoU}}{|TP|}, \quad
              \text{RQ} = \frac{|TP|}{|TP| + \frac{1}{2}|FP| + \frac{1}{2}|FN|}

    of the sums over all images; how pairs are matched is said at `lightning_sal.metrics.functional.panoptic_quality`.
    `update` takes the predicted (M, H, W) and the true instances (I, H, W) of one image, or lists of them, one entry an
    image. `compute` gives float64 scalars `pq`, `sq` and `rq`, NaN if no rank has seen an instance; `sq` is 0 where nothing
    matches.

    Args:
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import PanopticQuality
        >>> target = torch.zeros(2, 4, 6)
        >>> target[0, :2, :4] = target[1, 2:, :4] = 1
        >>> metric = PanopticQuality()
        >>> metric.update([target[:1], target], [target, target])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'pq': 0.857, 'sq': 1.0, 'rq': 0.857}
    """

    names = ("matched_iou", "matched", "instances_of_both")
    values = tuple((name, ()) for name in names)

    def of_iou(self, iou: Tensor) -> Tensor:
        return panoptic_counts(iou)

    def compute(self) -> dict[str, Tensor]:
        """`pq`, `sq` and `rq`."""
        return qualities(*(self.summed(name) for name in self.names))._asdict()


class InstanceF1(InstanceOverlapMetric):
    r"""F1 of instances without scores, averaged over all images of all ranks.

    .. math:: F_1 = \frac{2 c}{M + I}

    for c the most pairs of one of M predictions and one of I instances of an image with IoU >= t (Hungarian, so no order
    matters); an image without an instance on either side counts 1. `compute` gives a float64 scalar for each threshold t,
    `f1_50` and `f1_70`; NaN if no rank has seen an image. `update` takes the predicted (M, H, W) and the true instances
    (I, H, W) of one image, or lists of them, one entry an image.

    Args:
        iou_thresholds: The least IoUs t of a pair, in (0, 1].
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import InstanceF1
        >>> target = torch.zeros(2, 4, 6)
        >>> target[0, :2, :4] = target[1, 2:, :5] = 1
        >>> preds = target.clone()
        >>> preds[1, 2:, 3:] = 0  # IoU 6/10
        >>> metric = InstanceF1()
        >>> metric.update([preds, target[:1]], [target, target])
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'f1_50': 0.833, 'f1_70': 0.583}
    """

    values = ()

    def __init__(self, iou_thresholds: Sequence[float] = (0.5, 0.7), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for threshold in iou_thresholds:
            check_threshold(threshold)
        self.iou_thresholds = tuple(iou_thresholds)
        self.names = tuple(f"f1_{100 * threshold:g}" for threshold in iou_thresholds)
        for name in self.names:
            self.add_sum(name, ())

    def of_iou(self, iou: Tensor) -> Tensor:
        return torch.stack([f1_of(iou, threshold) for threshold in self.iou_thresholds])

    def compute(self) -> dict[str, Tensor]:
        """`f1_<100 t>` for each threshold t."""
        return {name: self.mean(name) for name in self.names}
