"""An answer of another kind: boxes as JSON, of which SAM2 makes masks.

    lightning fit --config conf/real/sod.yaml --config examples/new_answer.yaml
    lightning-sal segment photographs --task examples/new_answer.py:BOXES --segmenter sam2_hiera_large.pt

An answer is a subclass of `Answer` that holds what is said; its task reads and writes it, and says what a segmenter is
asked. The policy speaks of boxes in thousandths of the image's width and height; a prompt is in pixels of the original
image, and `prompts` is the one place that turns the one into the other.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_sal.samples import ImageGroup, VisualPrompt
from lightning_sal.tasks import Answer, InstanceTask, Measure
from lightning_sal.tasks.blocks import quoted, read_blocks, write_blocks

FRAME = 1000  # the sides of every image, in the coordinates of an answer
FORM = "<answer>[[x0, y0, x1, y1], ...]</answer>"


@dataclass(frozen=True, slots=True)
class Boxes(Answer):
    """Boxes x0, y0, x1, y1 in thousandths of the image's width and height.

    Args:
        boxes: In the order of the answer.
        **kwargs: As for `Answer`.
    """

    boxes: tuple[tuple[float, ...], ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The boxes, one text each."""
        return tuple(" ".join(f"{value:g}" for value in box) for box in self.boxes)

    def fields(self) -> dict[str, Any]:
        """`boxes_per_mille`, a list of lists of four numbers."""
        return {"boxes_per_mille": [list(box) for box in self.boxes]}


class BoxTask(InstanceTask):
    """One box an object, each with a mask of its own; measured as instances are, and by the IoU of the boxes."""

    prompt_type = VisualPrompt

    def parse(self, text: str) -> Boxes:
        """See `Task.parse`; boxes with a fault of their own are left out."""
        blocks = read_blocks(text, self.reasoning)
        boxes, fault = ((), None) if blocks.body is None else _read(blocks.body)
        return Boxes(
            boxes,
            reasoning=blocks.reasoning,
            structure_ok=blocks.fault is None,
            grammar_ok=blocks.body is not None and fault is None,
            reason="; ".join(each for each in (blocks.fault, fault) if each) or None,
            answer_at=blocks.answer_at,  # for the confidence in the answer alone, see docs/algorithms.md
        )

    def write(self, reasoning: str, answer: Boxes) -> str:
        """See `Task.write`."""
        text = write_blocks(reasoning, json.dumps(answer.boxes), self.reasoning)
        if (read := self.parse(text)).reason or read.boxes != answer.boxes:
            raise ValueError(f"no {self.name} response from these parts: {read.reason or 'they are read otherwise'}")
        return text

    def prompts(self, answer: Boxes, size: tuple[int, int]) -> tuple[VisualPrompt, ...]:
        """The boxes in pixels of the image."""
        height, width = size
        scale = (width / FRAME, height / FRAME) * 2
        boxes = [[value * pixels for value, pixels in zip(box, scale, strict=True)] for box in answer.boxes]
        return tuple(VisualPrompt(box=(x0, y0, x1, y1)) for x0, y0, x1, y1 in boxes)

    def agrees(self, answer: Boxes, group: ImageGroup) -> bool | None:
        """Whether the boxes are those of the annotated response, in any order."""
        if group.response is None:
            return None
        return sorted(answer.boxes) == sorted(self.parse(group.response).boxes)

    def measures(self) -> dict[str, Measure]:
        """Those of instances, and `box_iou`."""
        return super().measures() | {"box_iou": Measure("box IoU", reported=True, per_image=True)}

    def metrics(self, **options: Any) -> dict[str, Any]:
        """Those of instances, and `box_iou`."""
        return super().metrics(**options) | {"box_iou": MeanMetric()}

    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Any,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """See `Task.update`; masks that come from elsewhere have no boxes, and no box IoU."""
        values = super().update(metrics, group, answer, masks, scores)
        if answer is None or not values:
            return values
        for number, (row, image) in enumerate(zip(values, group.images, strict=True)):
            prompts = self.prompts(answer, (image.shape[0], image.shape[1]))
            found = torch.tensor([prompt.box for prompt in prompts]).view(-1, 4)
            row["box_iou"] = mean_box_iou(found, _target_boxes(group, number))
            metrics["box_iou"].update(row["box_iou"])
        return values


def mean_box_iou(found: Tensor, target: Tensor) -> float:
    """IoU of boxes (M, 4) and (I, 4) paired so that its sum is largest; those without a partner count 0, none at all 1."""
    if not len(found) or not len(target):
        return float(len(found) == len(target))
    low = torch.maximum(found[:, None, :2], target[:, :2])
    high = torch.minimum(found[:, None, 2:], target[:, 2:])
    overlap = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (found, target)]
    iou = overlap / (areas[0][:, None] + areas[1] - overlap)
    return float(iou[linear_sum_assignment(iou, maximize=True)].sum()) / max(iou.shape)


def _target_boxes(group: ImageGroup, number: int) -> Tensor:
    """(I, 4) boxes of an image in pixels: those that the sample has, or those around its masks."""
    if group.boxes is not None:
        return group.boxes[number].cpu()
    assert group.masks is not None  # `needs` says so
    pixels = [mask.nonzero() for mask in group.masks[number].cpu() if mask.any()]
    boxes = [[*each.amin(0).flip(0).tolist(), *(each.amax(0).flip(0) + 1).tolist()] for each in pixels]
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)


def _read(body: str) -> tuple[tuple[tuple[float, ...], ...], str | None]:
    """Boxes of an answer block without a fault of their own, and the first fault of the block."""
    try:
        items = json.loads(body)
    except (ValueError, RecursionError):
        return (), f"the answer is not JSON: {quoted(body)}"
    if not isinstance(items, list) or not items:
        return (), f"the answer is no list of boxes: {quoted(body)}"
    faulty = [item for item in items if not _is_box(item)]
    fault = f"{quoted(json.dumps(faulty[0]))} is not x0, y0, x1, y1 from 0 to {FRAME}" if faulty else None
    return tuple(tuple(item) for item in items if _is_box(item)), fault


def _is_box(item: Any) -> bool:
    """Whether a value of JSON is four numbers of the frame, first corner first."""
    if not isinstance(item, list) or len(item) != 4 or not all(type(value) in (int, float) for value in item):
        return False
    x0, y0, x1, y1 = item
    return all(math.isfinite(value) for value in item) and 0 <= x0 < x1 <= FRAME and 0 <= y0 < y1 <= FRAME


SIDES = f"from 0 to {FRAME} of the image's width and height"
BOXES = BoxTask(
    name="boxes",
    title="salient objects by their boxes",
    instruction=f"Put a box around each object that stands out, {SIDES}. The form is: <think>reasons</think>{FORM}",
    brief=f"Put a box around each object that stands out, {SIDES}. The form is: {FORM}",
)
