"""What tasks about objects are measured by: the masks, the boxes and the number of what is asked for.

A sample is measured by what it knows: masks, boxes, how many there are, whether there is any. What cannot be read is no
object, and right nowhere, also where nothing is there to be found. `lightning_sal.tasks.boxes` has the kind of answer.

Legend: K = 1 image of H x W pixels, M objects that an answer lists, I true boxes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from lightning_sal.samples import ImageGroup, VisualPrompt
from lightning_sal.tasks.base import Task
from lightning_sal.tasks.boxes import Objects, true_count
from lightning_sal.tasks.measures import Measure

if TYPE_CHECKING:
    from torch import Tensor

OF_BOXES = {
    "ap50": Measure("AP50", overlap=True),
    "ap75": Measure("AP75"),
    "ap": Measure("AP"),
    "precision": Measure("precision", per_image=True),
    "recall": Measure("recall", per_image=True),
    "f1": Measure("F1", per_image=True),
    "precision_pooled": Measure("precision, pooled"),
    "recall_pooled": Measure("recall, pooled"),
    "f1_pooled": Measure("F1, pooled"),
}
OF_COUNTS = {
    "count_accuracy": Measure("count accuracy", per_image=True),
    "count_error": Measure("count error", lower_is_better=True, per_image=True),
    "no_target_accuracy": Measure("N-acc", per_image=True),
    "target_accuracy": Measure("T-acc", per_image=True),
    "unreadable": Measure("unreadable", lower_is_better=True, per_image=True),
}


class ObjectTask(Task):
    """A task whose answer lists objects by boxes and points; a subclass names what it is judged by.

    Measured by average precision of the boxes, which are scored by the share of the image that each covers; precision,
    recall and F1 at IoU 0.5; the number of objects; `no_target_accuracy` and `target_accuracy`, whether an answer is empty
    where there is nothing, and is not where there is something; `unreadable`, the share of answers without a list in JSON.
    """

    scoring = "lightning_sal.evaluation.object_scoring"
    primary: ClassVar[str]
    """The measure that is the correctness of a sample."""
    reported: ClassVar[frozenset[str]]
    """The measures that papers report."""

    def known_measures(self) -> dict[str, Measure]:
        """All measures by name, before it is said which are primary and reported."""
        return OF_BOXES | OF_COUNTS

    def measures(self) -> dict[str, Measure]:
        """See `Task.measures`."""
        return {
            name: replace(measure, primary=name == self.primary, reported=name in self.reported)
            for name, measure in self.known_measures().items()
        }

    def metrics(self, **_: Any) -> dict[str, Any]:
        """New metrics; what only maps have options for is passed over."""
        from torchmetrics import MeanMetric

        from lightning_sal.metrics import BoxAveragePrecision, BoxPrecisionRecall, CountAccuracy, TargetAccuracy

        return {
            "ap": BoxAveragePrecision(),
            "boxes": BoxPrecisionRecall(),
            "counts": CountAccuracy(),
            "targets": TargetAccuracy(),
            "unreadable": MeanMetric(),
        }

    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Objects | None,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """See `Task.update`; `scores` are those of the boxes, by default their shares of the image."""
        values: dict[str, Any] = {}
        listed = None if answer is None or not answer.readable else len(answer.boxes)
        if answer is not None:
            values["unreadable"] = float(not answer.readable)
            metrics["unreadable"].update(values["unreadable"])
            if group.boxes is not None:
                values |= self._update_boxes(metrics, group, answer, scores)
            if (count := known_count(group)) is not None:
                values |= metrics["counts"]([listed], [count])
        elif masks:
            listed = int((masks[0] > 0.5).any())
        if (targets := known_targets(group)) is not None and (answer is not None or masks):
            values |= metrics["targets"]([listed], [targets])
        own = self.measures()
        found = {name: float(value) for name, value in values.items() if name in own and own[name].per_image}
        return [{name: value for name, value in found.items() if not math.isnan(value)}]

    def correctness(
        self, groups: Sequence[ImageGroup], answers: Sequence[Objects], masks: Sequence[Sequence[Tensor] | None]
    ) -> list[float]:
        """See `Task.correctness`."""
        for group in groups:
            self.require(group)
        return [
            self.sample_correctness(group, answer, found) if answer.readable else 0.0
            for group, answer, found in zip(groups, answers, masks, strict=True)
        ]

    def answered(self, answer: Objects) -> bool:
        """See `Task.answered`; an empty list is an answer."""
        return answer.readable

    @abstractmethod
    def sample_correctness(self, group: ImageGroup, answer: Objects, masks: Sequence[Tensor] | None) -> float:
        """The primary measure of an answer that can be read."""

    def agrees(self, answer: Objects, group: ImageGroup) -> bool | None:
        """See `Task.agrees`; no answer is exactly the annotated one, since places may be stated in many ways."""
        return None

    def true_response(self, group: ImageGroup) -> str:
        """See `Task.true_response`; of the boxes and points of the sample.

        Without boxes it is the box around the whole mask. A box without a point gets the pixel of the mask inside it that is
        nearest to its centre, or the centre itself where the mask is not known or has no pixel there.

        Raises:
            ValueError: If the sample has neither boxes nor masks.
        """
        if group.boxes is None and group.masks is None:
            raise ValueError(f"{group.key}: the true answer of {self.name} lists boxes and this sample has none")
        ((height, width, _),) = (image.shape for image in group.images)
        mask = group.masks[0].any(0) if group.masks else None
        boxes = box_around(mask) if group.boxes is None else group.boxes[0].double().tolist()
        points = group.points[0].double().tolist() if group.points else []
        if len(points) != len(boxes):
            points = [inner_point(box, mask) for box in boxes]
        answer = Objects(tuple(map(tuple, boxes)), tuple(map(tuple, points)))
        looked = f"<{self.look}>an image of {width} x {height} pixels</{self.look}> " if self.look else ""
        return self.write(f"{looked}The annotation says where." if self.reasoning else "", answer)

    def _update_boxes(
        self, metrics: Mapping[str, Any], group: ImageGroup, answer: Objects, scores: Tensor | None
    ) -> dict[str, Tensor]:
        from lightning_sal.metrics.functional import area_shares

        assert group.boxes is not None
        boxes, target = box_tensor(answer), group.boxes[0]
        if scores is None:
            height, width, _ = group.images[0].shape
            scores = area_shares(boxes, height, width)
        metrics["ap"].update([boxes], [target], [scores])
        return metrics["boxes"]([boxes if answer.readable else None], [target])


class ObjectMaskTask(ObjectTask):
    """Objects as one region, the union of the masks of their boxes and points; correctness is its IoU.

    Measured by gIoU and cIoU of that, and by what `ObjectTask` says where a sample has boxes.
    """

    needs = frozenset({"masks"})
    prompt_type = VisualPrompt
    masks_per_image = 1
    primary = "giou"
    reported = frozenset({"giou", "ciou", "ap50", "no_target_accuracy"})

    def compose(self, masks: Tensor) -> Tensor:
        """The union: (E, H, W) bool -> (1, H, W) bool, empty where E = 0."""
        return masks.any(dim=0, keepdim=True)

    def known_measures(self) -> dict[str, Measure]:
        """Those of `ObjectTask` behind those of the mask."""
        of_masks = {"giou": Measure("gIoU", per_image=True, overlap=True), "ciou": Measure("cIoU")}
        return of_masks | super().known_measures()

    def metrics(self, **options: Any) -> dict[str, Any]:
        """Those of `ObjectTask`, and of the mask."""
        from lightning_sal.metrics import MaskIoU

        return {"iou": MaskIoU(), **super().metrics(**options)}

    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Objects | None,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """See `ObjectTask.update`; a sample or a method without masks adds nothing to gIoU and cIoU."""
        (values,) = super().update(metrics, group, answer, masks, scores)
        if masks and group.masks is not None:
            usable = answer is None or answer.readable
            found = metrics["iou"]([masks[0][0] if usable else None], [group.masks[0][0]])
            values = {"giou": found["giou"].item(), **values}
        return [values]

    def sample_correctness(self, group: ImageGroup, answer: Objects, masks: Sequence[Tensor] | None) -> float:
        """IoU of the mask, 1 where nothing is found and nothing is there."""
        from lightning_sal.metrics.functional import mask_iou

        if not masks or group.masks is None:
            raise ValueError(f"{group.key}: {self.name} is judged by masks, and no segmenter was asked")
        return mask_iou(masks[0], group.masks[0].to(masks[0].device)).item()


class ObjectBoxTask(ObjectTask):
    """Objects by their boxes, without masks; correctness is F1 at IoU 0.5."""

    needs = frozenset({"boxes"})
    primary = "f1"
    reported = frozenset({"ap", "ap50", "f1", "no_target_accuracy"})

    def sample_correctness(self, group: ImageGroup, answer: Objects, masks: Sequence[Tensor] | None) -> float:
        """F1 of the boxes, 1 where none is listed and none is there."""
        from lightning_sal.metrics import BoxPrecisionRecall

        assert group.boxes is not None
        metric = BoxPrecisionRecall()
        metric.update([box_tensor(answer)], [group.boxes[0].cpu()])
        return metric.compute()["f1"].item()


class ObjectCountTask(ObjectTask):
    """How many objects there are, told by listing them; correctness is 1 where their number is right, else 0."""

    primary = "count_accuracy"
    reported = frozenset({"count_accuracy", "count_error"})

    def require(self, group: ImageGroup) -> None:
        """See `Task.require`; there must be a true count.

        Raises:
            ValueError: Likewise.
        """
        super().require(group)
        if true_count(group) is None:
            raise ValueError(f"{group.key}: {self.name} needs a number and this sample has none; give its reference")

    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Objects | None,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """See `ObjectTask.update`; a sample whose number is unknown adds nothing."""
        return super().update(metrics, group, answer, masks, scores) if known_count(group) is not None else []

    def sample_correctness(self, group: ImageGroup, answer: Objects, masks: Sequence[Tensor] | None) -> float:
        """Whether as many objects are listed as there are."""
        return float(len(answer.boxes) == true_count(group))

    def agrees(self, answer: Objects, group: ImageGroup) -> bool | None:
        """See `Task.agrees`: whether the number is the true one."""
        count = known_count(group)
        return None if count is None else answer.readable and len(answer.boxes) == count


def known_count(group: ImageGroup) -> int | None:
    """`true_count`, None where the reference is no number, as it may be of a sample that is not counted."""
    try:
        return true_count(group)
    except ValueError:
        return None


def known_targets(group: ImageGroup) -> int | None:
    """How many targets there are, or 1 where only a mask says that there is something; None where nothing is known."""
    if (count := known_count(group)) is not None or group.masks is None:
        return count
    return int(any(bool(mask.any()) for mask in group.masks))


def box_tensor(answer: Objects) -> Tensor:
    """The boxes of an answer, (M, 4) float64; an entry without a box that is finite covers nothing."""
    import torch

    nothing = (0.0, 0.0, 0.0, 0.0)
    boxes = [box if box and all(map(math.isfinite, box)) else nothing for box in answer.boxes]
    return torch.tensor(boxes, dtype=torch.float64).view(-1, 4)


def box_around(mask: Tensor | None) -> list[list[float]]:
    """The one box around a mask (H, W) bool, or none where that is empty."""
    if mask is None or not mask.any():
        return []
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [[float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1]]


def inner_point(box: Sequence[float], mask: Tensor | None) -> tuple[float, float]:
    """The centre of the pixel of a mask in a box that is nearest to the box's centre.

    Args:
        box: x0, y0, x1, y1 in pixels.
        mask: (H, W) bool; None, or without a pixel in the box, gives the centre of the box.
    """
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if mask is None:
        return x, y
    left, top = max(math.floor(x0), 0), max(math.floor(y0), 0)
    pixels = mask[top : max(math.ceil(y1), 0), left : max(math.ceil(x1), 0)].nonzero().cpu() + 0.5  # (P, 2): y, x
    if not len(pixels):
        return x, y
    pixels[:, 0] += top
    pixels[:, 1] += left
    nearest = pixels[(pixels - pixels.new_tensor([y, x])).square().sum(1).argmin()]
    return float(nearest[1]), float(nearest[0])
