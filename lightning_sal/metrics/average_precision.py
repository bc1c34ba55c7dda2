"""Average precision of instances as a torchmetrics metric."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics.base import placed
from lightning_sal.metrics.functional.average_precision import average_precision, match_instances
from lightning_sal.metrics.functional.mask_iou import instance_iou

BINS = 2**16


def linear_bins(scores: Tensor) -> Tensor:
    """The bin of each score in [0, 1], of bins of equal width."""
    return (scores * BINS).long().clamp(max=BINS - 1)


class AveragePrecision(Metric):
    """Class-agnostic average precision, as COCO evaluation defines it; a subclass says how far things overlap.

    Args:
        iou_thresholds: The least IoUs t of a match, in (0, 1].
        max_detections: Predictions of an image that count, those with the highest scores; COCO takes 100.
        kwargs: Those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    score_bins = staticmethod(linear_bins)

    hits: Tensor
    alarms: Tensor
    instances: Tensor

    def __init__(self, iou_thresholds: Sequence[float], max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not iou_thresholds or not all(0 < threshold <= 1 for threshold in iou_thresholds):
            raise ValueError(f"iou_thresholds must lie in (0, 1] and be at least one, not {list(iou_thresholds)}")
        self.iou_thresholds, self.max_detections = tuple(iou_thresholds), max_detections
        empty = torch.zeros(len(self.iou_thresholds), BINS, dtype=torch.int32)
        self.add_state("hits", empty, dist_reduce_fx="sum")
        self.add_state("alarms", empty.clone(), dist_reduce_fx="sum")
        self.add_state("instances", torch.zeros((), dtype=torch.int32), dist_reduce_fx="sum")

    def update(
        self,
        preds: Tensor | Sequence[Tensor],
        target: Tensor | Sequence[Tensor],
        scores: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add one image or several; nothing is added where one of them is refused.

        Args:
            preds: M >= 0 predictions of an image as the class has them, or a list of such, one an image.
            target: I >= 0 truths, likewise.
            scores: (M,) in [0, 1], or a list of such; None gives every prediction the score 1.

        Raises:
            ValueError: If what is given does not fit, or a score is NaN or outside [0, 1]; the message names the image.
        """
        preds, target, scores = placed(self.device, preds, target, scores)
        if isinstance(preds, Tensor) and isinstance(target, Tensor):
            preds, target = [preds], [target]
            scores = None if scores is None else [scores]  # type: ignore[list-item]
        if scores is None:
            scores = [torch.ones(len(pred), device=self.device) for pred in preds]
        if not len(preds) == len(target) == len(scores):
            raise ValueError(f"{len(preds)} preds, {len(target)} targets and {len(scores)} scores: one each an image")
        found = []
        for index, image in enumerate(zip(preds, target, scores, strict=True)):
            try:
                found.append(self._match(*image))
            except ValueError as error:
                raise ValueError(f"image {index}: {error}") from None
        for bins, matched, instances in found:
            self.hits.index_add_(1, bins, matched)
            self.alarms.index_add_(1, bins, 1 - matched)
            self.instances += instances

    def compute(self) -> dict[str, Tensor]:
        """`ap<100 t>` for each threshold t, and `ap`, their mean, where there are several."""
        values = average_precision(self.hits, self.alarms, self.instances)
        named = {f"ap{100 * t:g}": value for t, value in zip(self.iou_thresholds, values, strict=True)}
        return named | ({"ap": values.mean()} if len(values) > 1 else {})

    @abstractmethod
    def overlaps(self, preds: Tensor, target: Tensor) -> Tensor:
        """IoU of every prediction of an image with every truth, (M, I).

        Raises:
            ValueError: If they are not what the class takes.
        """

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several, by default what `compute` gives; returns figure and axes."""
        return self._plot(val, ax)

    def _match(self, preds: Tensor, target: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, int]:
        """Score bins (M,) of what counts, which of it finds an instance (T, M), and the number of instances."""
        overlaps = self.overlaps(preds, target)
        if scores.shape != preds.shape[:1]:
            raise ValueError(f"scores {tuple(scores.shape)} must be one for each of {len(preds)} preds")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError("scores must lie in [0, 1] and not be NaN")
        best = scores.argsort(descending=True, stable=True)[: self.max_detections]
        scores = scores[best].cpu()
        thresholds = torch.tensor(self.iou_thresholds, dtype=torch.float64)
        matched = match_instances(overlaps[best], scores, thresholds)
        return self.score_bins(scores.double()).to(self.device), matched.to(self.device, torch.int32), len(target)


class InstanceAveragePrecision(AveragePrecision):
    r"""Class-agnostic average precision of instance masks, as COCO evaluation defines it, over all images of all ranks.

    .. math:: \text{AP}_t = \frac{1}{101} \sum_{r \in \{0, 0.01, ..., 1\}} \max_{r' \ge r} P_t(r')

    where predictions are matched to the instances of their image from the highest score down, at IoU >= t. `compute`
    gives a float64 scalar for each threshold, `ap50`, `ap70`, and `ap`, their mean, where there are several; NaN if no
    rank has seen an instance. The states do not grow: scores are resolved to 1/65536, and predictions that are not told
    apart by it enter together, whatever their order. Without scores all are 1, and AP is the precision times the share
    of recall points that are reached.

    Args:
        iou_thresholds: The least IoUs t of a match, in (0, 1].
        max_detections: Predictions of an image that count, those with the highest scores; COCO takes 100.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import InstanceAveragePrecision
        >>> target = torch.zeros(2, 4, 6, dtype=torch.bool)
        >>> target[0, :2, :4], target[1, 2:, :4] = True, True
        >>> preds = target.clone()
        >>> preds[1, 2:, 3] = False  # IoU 6/8
        >>> metric = InstanceAveragePrecision((0.5, 0.8))
        >>> metric.update(preds, target, torch.tensor([0.9, 0.8]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'ap50': 1.0, 'ap80': 0.505, 'ap': 0.752}
    """

    def __init__(self, iou_thresholds: Sequence[float] = (0.5, 0.7), max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__(iou_thresholds, max_detections, **kwargs)

    def overlaps(self, preds: Tensor, target: Tensor) -> Tensor:
        """IoU of masks: (M, H, W) and (I, H, W), bool or numbers in [0, 1], True where > 0.5 -> (M, I)."""
        return instance_iou(preds, target)
