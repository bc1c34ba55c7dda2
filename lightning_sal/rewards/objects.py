"""Terms for answers of boxes and points: the format, and how far they are those of the true objects.

Distances are measured in a square of 840 pixels, to which each image is squashed, whatever its size: 30 of them are 3.6 % of
a side. Functions in `lightning_sal.rewards.perception`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_sal.frames import Square, from_original
from lightning_sal.inference.responses import Response
from lightning_sal.rewards.perception import (
    SIDE,
    Repetition,
    binary_hits,
    box_and_point,
    count_ratio,
    looked,
    non_repeat,
    tagged,
)
from lightning_sal.rewards.terms import RewardTerm, Scores, malformed
from lightning_sal.tasks.boxes import Objects, true_count

_DECIMALS = (
    3  # of a pixel, in which places are compared: whole pixels of the square stay whole on their way through float32
)


class TextTerm(RewardTerm):
    """A criterion that looks at the text of a response alone; works with every task."""

    bounds = (0.0, 1.0)
    missed: str
    """Why the value is not 1, for people to read."""

    @abstractmethod
    def value(self, text: str) -> float:
        """The value of a response."""

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1]."""
        values = [self.value(response.text) for response in responses]
        return Scores(torch.tensor(values), tuple(None if value == 1 else self.missed for value in values))


class FormatTags(TextTerm):
    """1 where a response is a think block, then an answer block, with white space between and nothing around; else 0."""

    name = "tags"
    missed = "the response is not <think>...</think><answer>...</answer> alone"

    def value(self, text: str) -> float:
        return tagged(text)


class Look(TextTerm):
    """1 where the reasoning or the answer holds a `<look>...</look>` with something in it; else 0.

    The policy is asked for it by its task, or by `policy.look`.

    Args:
        tag: Of the block.
    """

    name = "look"

    def __init__(self, tag: str = "look") -> None:
        super().__init__()
        self.tag, self.missed = tag, f"no <{tag}>...</{tag}>, or nothing in it"

    def value(self, text: str) -> float:
        return looked(text, self.tag)


class NonRepeat(TextTerm):
    """1 where at most one sentence of a response repeats an earlier one; else 0.

    Args:
        repetition: "dr_seg" compares sentences by their words, and refuses placeholders copied from the form;
            "vision_reasoner" compares what stands between two points.
    """

    name = "non_repeat"
    missed = "sentences are repeated, or copied from the form"

    def __init__(self, repetition: Repetition = "dr_seg") -> None:
        super().__init__()
        self.repetition: Repetition = repetition

    def value(self, text: str) -> float:
        return non_repeat(text, self.repetition)


class ObjectTerm(RewardTerm):
    """A criterion of the objects that a response lists; a subclass says which."""

    bounds = (0.0, 1.0)

    @abstractmethod
    def judge(self, response: Response, answer: Objects) -> float | None:
        """The value of a response; None where the sample lacks what it is compared with."""

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1].

        Raises:
            ValueError: If a task has no answers of boxes and points.
        """
        values = [self.judge(response, self._objects(response)) for response in responses]
        reasons = [
            "unknown: the sample has no boxes, points or number to compare with"
            if value is None
            else malformed(response)
            for value, response in zip(values, responses, strict=True)
        ]
        known = torch.tensor([value is not None for value in values])
        return Scores(torch.tensor([value or 0.0 for value in values]), tuple(reasons), known=known)

    def _objects(self, response: Response) -> Objects:
        answer = response.answer
        if not isinstance(answer, Objects):
            group = response.group
            raise ValueError(f"{group.key}: reward term '{self.name}' compares boxes, and {group.task} has none")
        return answer


class FormatJSON(ObjectTerm):
    """How much of the entries of the answer is there: the share of boxes of four values and of points of two.

    Args:
        empty: For a readable answer that lists nothing, in [0, 1]. The recipe has 0, since its questions have an answer.
    """

    name = "json"

    def __init__(self, empty: float = 1.0) -> None:
        super().__init__()
        self.empty = empty

    def judge(self, response: Response, answer: Objects) -> float:
        return self.empty if answer.readable and not answer.boxes else answer.complete


class CountMatch(ObjectTerm):
    """min(M, N) / max(M, N) of M listed and N true objects: 1 where there are none of both, 0 for what cannot be read."""

    name = "count"

    def judge(self, response: Response, answer: Objects) -> float | None:
        count = true_count(response.group)
        return None if count is None else count_ratio(answer, count)


class PlaceTerm(ObjectTerm):
    """A criterion of where the listed objects are, matched with the true ones.

    Args:
        empty: For a readable answer that lists nothing where there is nothing, in [0, 1]. The recipe has 0.
    """

    needs_points = False

    def __init__(self, empty: float = 1.0) -> None:
        super().__init__()
        self.empty = empty

    @abstractmethod
    def measure(self, answer: Objects, boxes: np.ndarray, points: np.ndarray) -> float:
        """The value of an answer; all places in pixels of the square, a true point that is not known NaN."""

    def judge(self, response: Response, answer: Objects) -> float | None:
        group = response.group
        if group.boxes is None or (self.needs_points and group.points is None):
            return None
        size = (group.images[0].shape[0], group.images[0].shape[1])
        boxes = _in_square(group.boxes[0], size)
        points = np.full((len(boxes), 2), np.nan) if group.points is None else _in_square(group.points[0], size)
        if len(boxes) != len(points):
            raise ValueError(f"{group.key}: {len(boxes)} boxes and {len(points)} points: give one each, or no points")
        if answer.readable and not answer.boxes and not len(boxes):
            return self.empty
        return self.measure(_squashed(answer, size), boxes, points)


class BoxIoU(PlaceTerm):
    """Mean IoU of the pairs of listed and true boxes, min(M, N) of them, matched by VisionReasoner's three criteria."""

    name = "box"

    def measure(self, answer: Objects, boxes: np.ndarray, points: np.ndarray) -> float:
        return box_and_point(answer, boxes, points)[0]


class PointDistance(PlaceTerm):
    """Mean over these pairs of 1 up to 30 pixels between the points, (200 - d) / 170 between, and 0 from 200 on."""

    name = "point"
    needs_points = True

    def measure(self, answer: Objects, boxes: np.ndarray, points: np.ndarray) -> float:
        return box_and_point(answer, boxes, points)[1]


class OverlapHit(PlaceTerm):
    """VisionReasoner's first criterion: how many pairs have an IoU above 0.5, over max(M, N)."""

    name = "overlap_hit"

    def measure(self, answer: Objects, boxes: np.ndarray, points: np.ndarray) -> float:
        return binary_hits(answer, boxes, points)[0]


class CornerHit(PlaceTerm):
    """VisionReasoner's second criterion: how many pairs differ by less than 10 pixels a side, over max(M, N)."""

    name = "corner_hit"

    def measure(self, answer: Objects, boxes: np.ndarray, points: np.ndarray) -> float:
        return binary_hits(answer, boxes, points)[1]


class PointHit(PlaceTerm):
    """VisionReasoner's third criterion: how many pairs of points are less than 30 pixels apart, over max(M, N)."""

    name = "point_hit"
    needs_points = True

    def measure(self, answer: Objects, boxes: np.ndarray, points: np.ndarray) -> float:
        return binary_hits(answer, boxes, points)[2]


def _in_square(places: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(N, C) places in pixels of an image of (H, W) -> in pixels of the square."""
    rows = [_rounded(row, size) for row in places.double().tolist()]
    return np.array(rows, float).reshape(-1, places.shape[-1])


def _squashed(answer: Objects, size: tuple[int, int]) -> Objects:
    """An answer with its places in pixels of the square."""
    return answer.moved(lambda values: _rounded(values, size))


def _rounded(values: Sequence[float], size: tuple[int, int]) -> tuple[float, ...]:
    return tuple(round(value, _DECIMALS) for value in from_original(values, Square(SIDE), size))
