"""What Dr. Seg's reward is made of: four criteria of the format, and boxes, points and their number against the true ones.

Functions of a text and of numbers, of which `lightning_sal.rewards.objects` makes terms. They do what the public code does,
but that what is no number counts 0, and an unreadable answer is not the answer "nothing fits".

Legend: M objects that a response lists, N true objects; boxes are x0, y0, x1, y1, in pixels of a square of 840.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lightning_sal.tasks.blocks import looks
from lightning_sal.tasks.boxes import Listed, Objects, first_answer, numbers, read_list

MOST = 120  # objects of either side that are compared
OVERLAP, CORNERS, NEAR, FAR = 0.5, 10.0, 30.0, 200.0
SIDE = 840  # of the square in whose pixels these are

_BETWEEN = re.compile(r"</think>\s*<answer>")
_PLACEHOLDERS = re.compile(
    r"\b(?:your\W*(?:reasoning\W*text|visual\W*focus)|more\W*reasoning\W*text)\b", re.IGNORECASE
)  # of the form that the recipe's prompt shows
_ENDS = re.compile(r"(?<![0-9])\.|\.(?![0-9])|[。!?！？…]")  # a point between two digits ends no sentence
_AROUND = " \t\r\n\f\v\"'`“”‘’«»()[]{}（）【】「」『』《》,，、"
Repetition = Literal["dr_seg", "vision_reasoner"]


def perception_terms(
    response: str,
    boxes: Sequence[Sequence[float]],
    points: Sequence[Sequence[float]],
    *,
    repetition: Repetition = "dr_seg",
    tag: str = "look",
) -> dict[str, float]:
    """All terms of the reward of a response, before any ranking.

    Args:
        response: The whole of it.
        boxes: (N, 4) true boxes in the units of the response, a square of 840.
        points: (N, 2) true points.
        repetition: Which rule of repetition: see `non_repeat`.
        tag: Of the blocks that the reasoning must hold.

    Returns:
        tags, look, non_repeat: 0 or 1; json in [0, 2]; box, count, point in [0, 1].

    Raises:
        ValueError: If the truth is not N boxes of four numbers and N points of two.
    """
    listed = _listed(response)
    truth = _arrays(boxes, points)
    box, point = box_and_point(listed, *truth)
    return {
        "tags": tagged(response),
        "json": 2 * listed.complete,
        "look": looked(response, tag),
        "non_repeat": non_repeat(response, repetition),
        "box": box,
        "count": count_ratio(listed, len(truth[0])),
        "point": point,
    }


def tagged(text: str) -> float:
    """1 where a response is a think block, then an answer block, with white space between and nothing around; else 0."""
    opens, closes = "<think>", "</answer>"
    sound = text.startswith(opens) and text.endswith(closes)
    return float(sound and _BETWEEN.search(text, len(opens), len(text) - len(closes)) is not None)


def looked(text: str, tag: str = "look") -> float:
    """1 where the first think block or the first answer block holds a `<look>...</look>` with something in it; else 0."""
    return float(any(looks(text[slice(*place)], tag) for name in ("think", "answer") for place in _first(text, name)))


def non_repeat(text: str, repetition: Repetition = "dr_seg") -> float:
    """1 where at most one sentence of a response repeats an earlier one, and none is a placeholder of the form; else 0.

    Args:
        text: The whole response.
        repetition: "dr_seg" compares sentences without case, quotes, brackets and differences of white space, which end with
            any of . 。 ! ? ！ ？ …; "vision_reasoner" compares what stands between two points, letter by letter.
    """
    if repetition == "vision_reasoner":
        sentences = [part.strip() for part in text.split(".")]
    elif _PLACEHOLDERS.search(text):
        return 0.0
    else:
        sentences = [" ".join(part.lower().split()).strip(_AROUND) for part in _ENDS.split(text)]
    sentences = [sentence for sentence in sentences if sentence]
    return float(len(sentences) - len(set(sentences)) < 2)


def box_and_point(listed: Listed | Objects, boxes: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Mean IoU and mean score of the points of the pairs of `match`; 0 where an entry has no numbers, or there is no pair.

    A point at a distance d scores 1 up to 30, (200 - d) / 170 between, and 0 from 200 pixels on. What is not finite is 0.

    Args:
        listed: What a response lists.
        boxes: (N, 4) float64.
        points: (N, 2) float64.
    """
    found = _found(listed)
    if found is None or not len(found[0]) or not len(boxes):
        return 0.0, 0.0
    overlap, corners, distance, within = compared(*found, boxes[:MOST], points[:MOST])
    rows, columns = match(overlap, corners, distance, within)
    near = np.clip((FAR - distance[rows, columns]) / (FAR - NEAR), 0, 1)
    return _finite_mean(overlap[rows, columns]), _finite_mean(near)


def count_ratio(listed: Listed | Objects, count: int) -> float:
    """min(M, N) / max(M, N) of M listed and N true objects, 120 at most; 1 where there are none of both; 0 if unreadable."""
    if not listed.readable:
        return 0.0
    found, true = min(len(listed.boxes), MOST), min(count, MOST)
    return min(found, true) / max(found, true) if max(found, true) else 1.0


def binary_hits(listed: Listed | Objects, boxes: np.ndarray, points: np.ndarray) -> tuple[float, float, float]:
    """VisionReasoner's three criteria (arXiv 2505.12081): how many pairs of `match` meet each, over max(M, N).

    IoU above 0.5; mean difference of the four sides below 10; points less than 30 apart, and within the listed box. Numbers
    that are written as texts count here too, as Dr. Seg has it.
    """
    found = _found(listed)
    if found is None or not len(found[0]) or not len(boxes):
        return 0.0, 0.0, 0.0
    boxes, points = boxes[:MOST], points[:MOST]
    met = criteria(*compared(*found, boxes, points))
    rows, columns = _assigned(sum(met))
    most = max(len(found[0]), len(boxes))
    one, two, three = (float(each[rows, columns].sum()) / most for each in met)
    return one, two, three


def compared(
    boxes: np.ndarray, points: np.ndarray, true_boxes: np.ndarray, true_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four (M, N) arrays: IoU, with both edges inside; mean difference of sides; distance of points; (M, 1) point in box."""
    with np.errstate(all="ignore"):  # what a policy writes may be infinite or no number
        low = np.maximum(boxes[:, None, :2], true_boxes[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], true_boxes[None, :, 2:])
        both = np.clip(high - low + 1, 0, None).prod(-1)
        area, true_area = ((each[:, 2:] - each[:, :2] + 1).prod(-1) for each in (boxes, true_boxes))
        overlap = both / (area[:, None] + true_area - both)
        corners = np.abs(boxes[:, None] - true_boxes).mean(-1)
        distance = np.sqrt(((points[:, None] - true_points) ** 2).sum(-1))
        within = np.all((boxes[:, :2] <= points) & (points <= boxes[:, 2:]), axis=-1, keepdims=True)
    return overlap, corners, distance, within


def criteria(
    overlap: np.ndarray, corners: np.ndarray, distance: np.ndarray, within: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (M, N) arrays of bool: which of VisionReasoner's criteria each pair meets; what is no number meets none."""
    return overlap > OVERLAP, corners < CORNERS, (distance < NEAR) & within


def match(
    overlap: np.ndarray, corners: np.ndarray, distance: np.ndarray, within: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of min(M, N) pairs that meet most criteria in all; of those that meet as many, SciPy's choice."""
    return _assigned(sum(criteria(overlap, corners, distance, within)))


def _assigned(met: Any) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(3.0 - met)
    return rows, columns


def _found(listed: Listed | Objects) -> tuple[np.ndarray, np.ndarray] | None:
    """(M, 4) and (M, 2) of what is listed; None where an entry has no numbers."""
    boxes, points = listed.boxes[:MOST], listed.points[:MOST]
    if None in boxes or None in points:
        return None
    return np.array(boxes, float).reshape(-1, 4), np.array(points, float).reshape(-1, 2)


def _finite_mean(values: np.ndarray) -> float:
    return float(np.where(np.isfinite(values), values, 0.0).mean())


def _arrays(boxes: Sequence[Sequence[float]], points: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) and (N, 2) float64 of the truth."""
    found = [[numbers(list(row), length) for row in rows] for rows, length in ((boxes, 4), (points, 2))]
    if len(found[0]) != len(found[1]) or any(row is None or not all(map(math.isfinite, row)) for row in sum(found, [])):
        raise ValueError(
            f"the truth must be N boxes of 4 numbers and N points of 2, not {len(boxes)} and {len(points)}"
        )
    return np.array(found[0]).reshape(-1, 4), np.array(found[1]).reshape(-1, 2)


def _listed(response: str) -> Listed:
    place = first_answer(response)
    return Listed() if place is None else read_list(response[slice(*place)])


def _first(text: str, name: str) -> list[tuple[int, int]]:
    """Where what the first block of a name holds stands, in a list; none where it has no end."""
    start = text.find(f"<{name}>")
    end = text.find(f"</{name}>", start)
    return [(start, end)] if 0 <= start <= end else []
