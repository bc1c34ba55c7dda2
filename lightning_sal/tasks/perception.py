"""The perception tasks: what is found by words, all of a kind, and how many; answered by boxes and points in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_sal.tasks.boxes import BoxTask
from lightning_sal.tasks.objects import ObjectBoxTask, ObjectCountTask, ObjectMaskTask
from lightning_sal.tasks.registry import register


@dataclass(frozen=True, kw_only=True)
class Finding(BoxTask, ObjectMaskTask):
    """What the question names, as one region: the union of the masks of its boxes and points."""


@dataclass(frozen=True, kw_only=True)
class Detection(BoxTask, ObjectBoxTask):
    """What the question names, each object by its box."""


@dataclass(frozen=True, kw_only=True)
class Counting(BoxTask, ObjectCountTask):
    """How many objects the question names."""


_FIND = """\
Find everything in this image that is named above: each object by the box around it and by a point on it.
First reason between <think> and </think>: say which objects of the image could be meant, compare them, and tell which of \
them fit what is asked for and which do not.
Then answer between <answer> and </answer> with a list in JSON that has one entry an object: as "bbox_2d" its left, upper, \
right and lower edge, as "point_2d" a point within it. Where nothing in the image fits, the list is empty: []. Add nothing \
before, between or after. The form is:
<think>reasoning</think><answer>[{"bbox_2d": [10, 100, 200, 210], "point_2d": [30, 110]}, {"bbox_2d": [225, 296, 706, 786], \
"point_2d": [302, 410]}]</answer>"""

_FIND_BRIEF = """\
Find everything in this image that is named above: each object by the box around it and by a point on it.
Answer at once between <answer> and </answer> with a list in JSON that has one entry an object: as "bbox_2d" its left, \
upper, right and lower edge, as "point_2d" a point within it. Where nothing in the image fits, the list is empty: []. Add \
nothing before or after. The form is:
<answer>[{"bbox_2d": [10, 100, 200, 210], "point_2d": [30, 110]}]</answer>"""

_ASKED: dict[str, Any] = {"instruction": _FIND, "brief": _FIND_BRIEF, "look": "look"}  # the same of all three

PERCEPTION = register(
    Finding(
        name="perception",
        title="perception: what is found by words",
        **_ASKED,
        layout="lightning_sal.datasets.perception.LAYOUT",
    )
)
DETECTION = register(
    Detection(
        name="detection",
        title="detection of all objects of a kind",
        **_ASKED,
        layout="lightning_sal.datasets.detection.LAYOUT",
    )
)
COUNTING = register(
    Counting(
        name="counting",
        title="counting",
        **_ASKED,
        layout="lightning_sal.datasets.counting.LAYOUT",
    )
)
