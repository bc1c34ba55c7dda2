"""Pixels of a map by level, by what is true there, and by quadrant: all that S, E, F, MAE and IoU need.

Legend: H x W pixels, L levels of a map, K levels of its ground truth (2 where it is a mask).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_CODES = 65536  # that 16 bits hold


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """What is counted of an image.

    Args:
        values: (L,) what the levels of the map mean, in [0, 1], ascending.
        truth: (K,) what those of the ground truth mean, likewise.
        objects: (K,) bool, which of them are the object.
        pixels: (2, 2, K, L) whole numbers: pixels by quadrant, upper and lower, left and right of the object's centroid.
    """

    values: Array
    truth: Array
    objects: Array
    pixels: Array


def count_levels(
    levels: Array, top: float, truth: Array, truth_top: float, above: float, soft: bool, centroid: str
) -> LevelCounts:
    """Count the pixels of an image.

    Args:
        levels: (H, W) the map: whole numbers of 8 or 16 bits, or floats.
        top: The level that means 1.
        truth: (H, W) the ground truth: bool, or levels likewise.
        truth_top: The level that means 1 in it.
        above: The last grey of 255 that is background.
        soft: Whether levels of the truth between 0 and 1 are told apart.
        centroid: Name of a rule in `CENTROIDS`.

    Raises:
        ValueError: They differ in size.
    """
    if levels.shape != truth.shape:
        raise ValueError(f"a map of {levels.shape} and a ground truth of {truth.shape}: they must have one size")
    index, values = _indexed(levels, top)
    mask = is_object(truth, truth_top, above)
    if soft and truth.dtype != bool:
        kinds, kind_values = _present(*_indexed(truth, truth_top))
        objects = kind_values > above / 255
    else:
        kinds, kind_values, objects = mask.view(np.uint8), np.array([0.0, 1.0]), np.array([False, True])
    row, column = CENTROIDS[centroid](mask)
    size = len(kind_values) * len(values)
    codes = index + np.multiply(kinds, len(values), dtype=np.uint16 if 4 * size <= _CODES else np.int32)
    codes[:, column:] += size
    codes[row:] += 2 * size
    pixels = _tally(codes.ravel(), 4 * size).reshape(2, 2, len(kind_values), len(values))
    return LevelCounts(values, kind_values, objects, pixels)


def _tally(codes: Array, size: int) -> Array:
    """How often each of `size` codes occurs. Maps are mostly flat: runs are fewer than pixels, and no bin is waited for."""
    starts = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    if 8 * len(starts) > len(codes):
        return np.bincount(codes, minlength=size)
    starts = np.concatenate(([0], starts))
    return np.bincount(codes[starts], np.diff(starts, append=len(codes)), size).astype(np.intp)


def is_object(truth: Array, top: float, above: float) -> Array:
    """The mask, bool, of a ground truth; arguments as for `count_levels`."""
    return _as_mask(truth) if truth.dtype == bool else truth > above * (top / 255)


def _as_mask(bits: Array) -> Array:
    return bits.view(np.uint8) > 0  # Pillow's 1-bit images are arrays of bool whose bytes are 0 and 255


def _indexed(levels: Array, top: float) -> tuple[Array, Array]:
    """Levels as indices of a table of values: that of their type, or of those that occur."""
    if levels.dtype == np.uint8:
        return levels, np.minimum(np.arange(256) / top, 1)
    if levels.dtype == bool:
        return _as_mask(levels).view(np.uint8), np.array([0.0, 1.0])
    found, index = np.unique(levels, return_inverse=True)
    return index.astype(np.int32).reshape(levels.shape), np.minimum(found / top, 1)


def _present(index: Array, values: Array) -> tuple[Array, Array]:
    """Indices of those values alone that occur."""
    present = np.bincount(index.ravel(), minlength=len(values)) > 0
    return (np.cumsum(present) - 1).astype(np.uint16)[index], values[present]


def _mean_place(mask: Array, start: int) -> tuple[float, float]:
    """The mean row and column of the object, the first of them called `start`; the middle where there is none."""
    rows, columns = (mask.view(np.uint8).sum(axis, dtype=np.uint32) for axis in (1, 0))  # bools add up slower
    total = int(rows.sum())
    if not total:
        return mask.shape[0] / 2, mask.shape[1] / 2
    places = (float(np.dot(sums, np.arange(start, len(sums) + start))) / total for sums in (rows, columns))
    row, column = places
    return row, column


def _half_up(mask: Array) -> tuple[int, int]:
    row, column = _mean_place(mask, 1)
    return int(np.floor(row + 0.5)), int(np.floor(column + 0.5))


def _half_even(mask: Array) -> tuple[int, int]:
    row, column = _mean_place(mask, 0)
    return round(row) + 1, round(column) + 1


def _half_even_short(mask: Array) -> tuple[int, int]:
    row, column = _mean_place(mask, 0)
    return round(row), round(column)


CENTROIDS: Mapping[str, Callable[[Array], tuple[int, int]]] = {
    "half up": _half_up,  # the authors' MATLAB code, which counts from 1
    "half even": _half_even,  # numpy rounds so, from 0, and 1 is added after
    "half even, without the last": _half_even_short,  # the row and column of the centroid belong to the lower right
}
"""Mask -> how many of its rows and columns belong to the upper left quadrants."""
