"""Average precision of instances as a torchmetrics metric."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_sal.metrics.base import placed
from lightning_sal.metrics.functional.average_precision import average_precision, match_ranked
from lightning_sal.metrics.functional.mask_iou import instance_iou
from lightning_sal.metrics.functional.run_lengths import run_length_iou, run_length_ious

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # to the last bit

_AT_A_TIME = 32  # images that are matched together


class AveragePrecision(Metric):
    """Class-agnostic average precision, as COCO evaluation defines it; a subclass says how far things overlap.

    It is exact, so each prediction is held until `compute`: its score and a byte for each of T thresholds, 8 + T bytes. T is
    10 where all of `iou_thresholds` are among COCO's.

    Args:
        iou_thresholds: The least IoUs t of a match, in (0, 1], that are asked for beside COCO's .50, .55, ..., .95.
        max_detections: Predictions of an image that count, those with the highest scores; COCO takes 100.
        kwargs: Those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    scores: list[Tensor]
    outcomes: list[Tensor]
    instances: Tensor

    def __init__(self, iou_thresholds: Sequence[float], max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not iou_thresholds or not all(0 < threshold <= 1 for threshold in iou_thresholds):
            raise ValueError(f"iou_thresholds must lie in (0, 1] and be at least one, not {list(iou_thresholds)}")
        self.iou_thresholds, self.max_detections = tuple(iou_thresholds), max_detections
        self.all_thresholds = sorted({*COCO_THRESHOLDS, *iou_thresholds})
        self.add_state("scores", [], dist_reduce_fx="cat")  # (n,) float64 of each update
        self.add_state("outcomes", [], dist_reduce_fx="cat")  # (n, T) uint8, as `functional.match_instances` has them
        self.add_state("instances", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Any, target: Any, scores: Any = None, crowd: Any = None) -> None:
        """Add one image or several; nothing is added where one of them is refused.

        Args:
            preds: M >= 0 predictions of an image as the class has them, or a list of such, one an image.
            target: I >= 0 truths, likewise.
            scores: (M,) any finite numbers, or a list of such; None gives every prediction the score 1.
            crowd: (I,) bool, which of the true are crowds (COCO's `iscrowd`), or a list of such; None where none is. A crowd
                is not counted among the true. A prediction that finds no instance, but lies in a crowd by at least the
                threshold, as a share of its own area, is ignored; a crowd takes any number of them.

        Raises:
            ValueError: If what is given does not fit, or a score is NaN or infinite; the message names the image.
        """
        preds, target, scores, crowd = placed(self.device, preds, target, scores, crowd)
        if isinstance(preds, list) or isinstance(target, list):
            scores, crowd = ([None] * len(preds) if given is None else given for given in (scores, crowd))
        else:
            preds, target, scores, crowd = [preds], [target], [scores], [crowd]
        if not len(preds) == len(target) == len(scores) == len(crowd):
            counts = f"{len(preds)} preds, {len(target)} targets, {len(scores)} scores and {len(crowd)} crowds"
            raise ValueError(f"{counts}: one each an image")
        crowds = by_image(_as_crowd, target, crowd)
        ranked = by_image(partial(_ranked, self.max_detections), self.overlaps(preds, target, crowd), scores)
        if not ranked:
            return
        values, ious = zip(*ranked, strict=True)
        parts = [slice(start, start + _AT_A_TIME) for start in range(0, len(ious), _AT_A_TIME)]
        thresholds = np.array(self.all_thresholds)
        outcomes = [found.T for part in parts for found in match_ranked(ious[part], crowds[part], thresholds)]
        self.scores.append(torch.from_numpy(np.concatenate(values)).to(self.device))
        self.outcomes.append(torch.from_numpy(np.concatenate(outcomes)).to(self.device))
        self.instances += sum(int((~crowd).sum()) for crowd in crowds)

    def compute(self) -> dict[str, Tensor]:
        """`ap`, the mean over .50, .55, ..., .95, `ap<100 t>` for each t that was asked for, and where these are several
        their mean, such as `ap_50_70`."""
        values = average_precision(dim_zero_cat(self.scores), dim_zero_cat(self.outcomes).T, self.instances)
        at = dict(zip(self.all_thresholds, values, strict=True))
        asked = {f"{100 * t:g}": at[t] for t in self.iou_thresholds}
        named = {f"ap{name}": value for name, value in asked.items()}
        if len(asked) > 1:
            named[f"ap_{'_'.join(asked)}"] = torch.stack(list(asked.values())).mean()
        return {"ap": torch.stack([at[t] for t in COCO_THRESHOLDS]).mean()} | named

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As torchmetrics has it, where a rank without images sends as many dimensions as the others, and their type."""
        if not len(self.scores):
            self.scores = [torch.zeros(0, dtype=torch.float64, device=self.device)]
            self.outcomes = [torch.zeros(0, len(self.all_thresholds), dtype=torch.uint8, device=self.device)]
        super().sync(*args, **kwargs)

    @abstractmethod
    def overlaps(self, preds: Sequence[Any], target: Sequence[Any], crowd: Sequence[Tensor | None]) -> list[Tensor]:
        """IoU of every prediction of an image with every truth, (M, I) for each image; with a crowd, the share of the
        prediction in it.

        Raises:
            ValueError: If they are not what the class takes; the message names the image.
        """

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several, by default what `compute` gives; returns figure and axes."""
        return self._plot(val, ax)

    def _copy_state_dict(self) -> dict[str, Any]:
        """As torchmetrics has it for `forward`, but lists share their tensors, which never change: it copies each."""
        states = {name: getattr(self, name) for name in self._defaults}
        return {name: list(state) if isinstance(state, list) else state.clone() for name, state in states.items()}


def by_image(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """What a function gives for each image.

    Raises:
        ValueError: What the function raises, with the number of the image.
    """
    found = []
    for index, image in enumerate(zip(*columns, strict=True)):
        try:
            found.append(function(*image))
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from None
    return found


def _as_crowd(target: Any, crowd: Tensor | None) -> np.ndarray:
    """Which of I truths are crowds, (I,) bool."""
    if crowd is None:
        return np.zeros(len(target), dtype=bool)
    if crowd.shape != (len(target),) or crowd.dtype != torch.bool:
        raise ValueError(f"crowd {tuple(crowd.shape)}, {crowd.dtype}, must be a bool for each of {len(target)} targets")
    return crowd.cpu().numpy()


def _ranked(most: int, iou: Tensor, scores: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """The highest scores of an image (M,), from the highest down, and the rows (M, I) that go with them, float64 both."""
    values = np.ones(len(iou)) if scores is None else scores.double().cpu().numpy()
    if values.shape != (len(iou),):
        raise ValueError(f"scores {values.shape} must be one for each of {len(iou)} preds")
    if not np.isfinite(values).all():
        index = int(np.isfinite(values).argmin())
        raise ValueError(f"scores[{index}] is {values[index]}: scores must be finite")
    best = np.argsort(-values, kind="stable")[:most]
    return values[best], iou.double().cpu().numpy()[best]


class InstanceAveragePrecision(AveragePrecision):
    r"""Class-agnostic average precision of instance masks, as COCO evaluation defines it, over all images of all ranks.

    .. math:: \text{AP}_t = \frac{1}{101} \sum_{r \in \{0, 0.01, ..., 1\}} \max_{r' \ge r} P_t(r')

    where predictions are matched to the instances of their image from the highest score down, at IoU >= t. `compute` gives
    float64 scalars: `ap`, the mean over t = .50, .55, ..., .95, which is what papers call AP; `ap50` and `ap70`, or what
    thresholds are asked for; and their mean, `ap_50_70`, where they are several. NaN if no rank has seen an instance.

    Predictions of equal scores enter together, whatever their order and their rank, which is the least that any order gives
    in COCO evaluation; else the values are its own. Without scores all are 1, and AP is the precision times the share of
    recall points that are reached. Each prediction takes 18 bytes until `compute`, one more for a threshold that COCO lacks.

    `update` takes masks (M, H, W), or lists of such, one an image; or, always as a list of images, lists of COCO's run
    lengths, as its json has them, which are measured without a bitmap, fastest in one call for many images.

    Args:
        iou_thresholds: The least IoUs t of a match, in (0, 1], that are asked for beside COCO's.
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
        {'ap': 0.802, 'ap50': 1.0, 'ap80': 0.505, 'ap_50_80': 0.752}
    """

    def __init__(self, iou_thresholds: Sequence[float] = (0.5, 0.7), max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__(iou_thresholds, max_detections, **kwargs)

    def overlaps(self, preds: Sequence[Any], target: Sequence[Any], crowd: Sequence[Tensor | None]) -> list[Tensor]:
        """IoU (M, I) of masks, (M, H, W) and (I, H, W), bool or numbers in [0, 1], True where > 0.5; or of run lengths."""
        if any(isinstance(masks, Tensor) for masks in (*preds, *target)):
            return by_image(_iou_of_masks, preds, target, crowd)
        try:
            return run_length_ious(preds, target, crowd)
        except ValueError:
            by_image(run_length_iou, preds, target, crowd)  # names the image
            raise


def _iou_of_masks(preds: Any, target: Any, crowd: Tensor | None) -> Tensor:
    if not isinstance(preds, Tensor) or not isinstance(target, Tensor):
        raise ValueError("preds and target must both be masks, or both run lengths")
    return instance_iou(preds, target, crowd)
