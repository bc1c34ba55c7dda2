"""Borders of regions as chains of pixels, and the vertices of polygons that stand for them.

Legend: H x W pixels; a chain is (N, 2) of rows and columns, one step of 8 neighbours after the other.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Chain = NDArray[np.intp]
Labels = NDArray[np.integer[Any]]

# Steps to the 8 neighbours, counter-clockwise from the right one, as (rows, columns)
_STEPS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_RIGHT, _LEFT = 0, 4


def labelled(mask: Mask, corners: bool = False) -> tuple[Labels, int]:
    """The number of its region at each pixel, from 1, and how many there are; whether regions hold together at corners."""
    labels, count = cast(Any, ndimage.label(mask, np.ones((3, 3)) if corners else None))
    return labels, count


def borders(mask: Mask) -> list[Chain]:
    """The outer border of every 8-connected region and the border of every hole, as Suzuki & Abe 1985 follow them.

    A border is followed by a border of what it encloses before its next neighbour; of neighbours, the one that begins
    furthest down comes first. Order and first pixels are those of OpenCV's `findContours` with its whole tree.

    Args:
        mask: (H, W) of regions.

    Returns:
        A closed chain each; a pixel comes as often as the border passes it.
    """
    inside = np.pad(mask, 1)
    (regions, _), (holes, _) = labelled(inside, corners=True), labelled(~inside)
    holes[holes == holes[0, 0]] = 0  # what lies outside of everything is no hole
    enclosed: dict[tuple[bool, int], list[tuple[int, bool, int]]] = defaultdict(list)
    for is_hole, own, around in ((False, regions, holes), (True, holes, regions)):
        # Row by row, the first pixel of a component has what encloses the component to its left
        starts = np.flatnonzero((own[:, 1:] > 0) & (own[:, :-1] == 0))
        rows, columns = np.divmod(starts, mask.shape[1] + 1)
        labels, first = np.unique(own[rows, columns + 1], return_index=True)
        for label, row, column in zip(labels.tolist(), rows[first].tolist(), columns[first].tolist(), strict=True):
            outer = int(around[row, column])
            enclosed[not is_hole, outer].append((row * inside.shape[1] + column + 1, is_hole, label))
    cells, width = inside.tobytes(), inside.shape[1]
    found: list[Chain] = []
    waiting = sorted(enclosed[True, 0])
    while waiting:
        start, is_hole, label = waiting.pop()
        chain = np.array(_followed(cells, width, start - is_hole, _RIGHT if is_hole else _LEFT), dtype=np.intp)
        found.append(np.stack(np.divmod(chain, width), axis=1) - 1)
        waiting += sorted(enclosed[is_hole, label])
    return found


def _followed(cells: bytes, width: int, start: int, outside: int) -> list[int]:
    """A border as flat indices, from a pixel of it and the direction in which the outside lies."""
    steps = [row * width + column for row, column in _STEPS]
    last = next((turn % 8 for turn in range(outside + 7, outside, -1) if cells[start + steps[turn % 8]]), None)
    if last is None:
        return [start]
    end, here, direction = start + steps[last], start, last
    chain: list[int] = []
    while True:
        chain.append(here)
        turn = direction + 1
        while not cells[here + steps[turn % 8]]:
            turn += 1
        there = here + steps[turn % 8]
        if there == start and here == end:
            return chain
        here, direction = there, turn + 4  # from there, the direction in which it came


def count_vertices(chain: Chain, tolerance: float) -> int:
    """Vertices of the open polygon by which Douglas & Peucker 1973 replace a chain of different pixels.

    As in OpenCV's `approxPolyDP`, a vertex is dropped in the end where the polygon hardly bends.

    Args:
        chain: (N, 2), N >= 1.
        tolerance: How far a pixel of the chain may lie from the polygon, in pixels.
    """
    if len(chain) == 1:
        return 1
    waiting, vertices = [(0, len(chain) - 1)], [chain[0]]
    while waiting:
        first, last = waiting.pop()
        distances = _to_segment(chain[first + 1 : last], chain[first], chain[last])
        if len(distances) and distances.max() > tolerance**2:
            furthest = first + 1 + int(distances.argmax())
            waiting += [(furthest, last), (first, furthest)]
        else:
            vertices.append(chain[last])
    count, at, before = len(vertices), 1, vertices[0]
    while at < len(vertices) - 1 and count > 2:
        here, after = vertices[at], vertices[at + 1]
        step, way = after - before, here - before
        off = way[1] * step[0] - way[0] * step[1]
        if off**2 <= 0.5 * tolerance**2 * (step**2).sum() and step.all() and way @ (after - here) >= 0:
            count, at, before = count - 1, at + 2, after
        else:
            at, before = at + 1, here
    return count


def _to_segment(points: Chain, start: Chain, end: Chain) -> NDArray[np.float64]:
    """Squared distances (N,) of points (N, 2) to a straight piece between two others."""
    step, offsets = end - start, points - start
    along, length = offsets @ step, step @ step
    across = (offsets[:, 1] * step[0] - offsets[:, 0] * step[1]).astype(float) ** 2 / length
    before, after = (offsets**2).sum(1), ((points - end) ** 2).sum(1)
    return np.where(along < 0, before, np.where(along > length, after, across))
