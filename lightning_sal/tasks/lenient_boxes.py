"""Boxes and points in texts of models that never saw our form: JSON that is none, other keys, bare lists of numbers.

Everything takes time linear in the length of the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_ENTRY = re.compile(r"\{[^{}]*\}")
# Qwen-VL writes the corners of a box as (x0,y0),(x1,y1)
_NUMBERS = re.compile(r"""[\[(]((?:[-+\d.eE,;\s"']|\),\(){3,120}+)[\])]""")
_KEY = re.compile(r"""(\w{1,40})["']?\s{0,9}[:=]\s{0,9}\[?\s{0,9}\Z""")  # of what follows, by itself or in a list
_NAMED = re.compile(r"""\b([A-Za-z]\w{0,15})["']?\s{0,9}[:=]\s{0,9}["']?([-+]?\d{1,9}(?:\.\d{0,15})?)(?![\d.])""")
# Names of single numbers of a box, and of a point, where they are no list
_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
    ("left", "upper", "right", "lower"),
)
_POINTS = ("point", "cent", "click", "coord", "keypoint")  # what names of points have in them

Numbers = tuple[float, ...]


class Found(NamedTuple):
    """A box, a point, or both, and where in the text they stand."""

    box: Numbers | None
    point: Numbers | None
    place: tuple[int, int]


def find_objects(text: str, start: int, end: int) -> list[Found]:
    """The objects that a part of a text lists: an entry in braces each, or, where there are none, a list of numbers each.

    Args:
        text: Of any content.
        start: The first character of the part.
        end: The one behind its last.
    """
    entries = (_entry(text, *entry.span()) for entry in _ENTRY.finditer(text, start, end))
    if found := [entry for entry in entries if entry.box or entry.point]:
        return found
    lists = list(_lists(text, start, end))
    boxes = [Found(numbers, None, place) for _, numbers, place in lists if len(numbers) == 4]
    return boxes or [
        Found(None, numbers, place) for key, numbers, place in lists if len(numbers) == 2 and _is_point(key)
    ]


def _entry(text: str, start: int, end: int) -> Found:
    """The first box and the first point of an entry, whatever the box is called."""
    lists = list(_lists(text, start, end))
    named = {name.lower().replace("_", ""): float(number) for name, number in _NAMED.findall(text, start, end)}
    corners: list[Sequence[str]] = [names for names in _CORNERS if named.keys() >= set(names)]
    boxes = [numbers for _, numbers, _ in lists if len(numbers) == 4]
    boxes += [tuple(named[name] for name in names) for names in corners]
    points = [numbers for key, numbers, _ in lists if len(numbers) == 2 and _is_point(key)]
    points += [(named["x"], named["y"])] if named.keys() >= {"x", "y"} else []
    return Found(next(iter(boxes), None), next(iter(points), None), (start, end))


def _is_point(key: str) -> bool:
    return not key or any(name in key for name in _POINTS)


def _lists(text: str, start: int, end: int) -> Iterator[tuple[str, Numbers, tuple[int, int]]]:
    """Each list of 2 or 4 numbers: the key in front of it, in lower case and empty where it has none; it; its place."""
    for found in _NUMBERS.finditer(text, start, end):
        try:
            numbers = tuple(float(part.strip("\"'")) for part in re.split(r"[\s,;()]+", found[1].strip(" \t\r\n,;")))
        except ValueError:
            continue
        if len(numbers) in (2, 4) and all(map(math.isfinite, numbers)):
            key = _KEY.search(text[max(start, found.start() - 60) : found.start()])
            yield key[1].lower() if key else "", numbers, found.span()
