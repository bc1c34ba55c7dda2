"""COCO segmentations into masks.

An annotation's `segmentation` is a list of polygons [x1, y1, x2, y2, ...] whose union is the instance, or a run-length
encoding {"size": [h, w], "counts": ...} with counts as a list, or as COCO's string of 5-bit groups. Each is drawn right
at the size of the photograph, so that no size that a file states takes memory.

Legend: H x W pixels of the displayed photograph, h x w pixels of the frame in which a segmentation is given, I instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_sal import run_lengths
from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.pixels import fit, lies_turned

if TYPE_CHECKING:
    from torch import Tensor

Drawing = tuple[str, Any]  # (name for messages, segmentation)

MOST_PIXELS = 2**31  # of all instances of a photograph together
MOST_TIMES = 32  # how much larger a frame may be than the photograph, along a side
LARGEST = 2**31  # pixels, of a side
FARTHEST = 1e6  # pixels, of a coordinate from 0
CROSSINGS = 2**22  # of edges and rows, worked on at a time


@dataclass(frozen=True, slots=True)
class Polygons:
    """The union of some polygons.

    Args:
        rings: Arrays (V, 2) of x and y in pixels of the frame, V >= 3.
        frame: (h, w), or None for that of the photograph.
    """

    rings: Sequence[np.ndarray]
    frame: tuple[int, int] | None

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """The mask, (h, w) bool, with the frame brought to a size."""
        height, width = self.frame or size
        mask = np.zeros(size, dtype=bool)
        for ring in self.rings:
            fill(ring * (size[1] / width, size[0] / height), mask)
        return mask


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Runs of background and object by turns, down the columns.

    Args:
        ends: Pixels up to the end of each run.
        frame: (h, w).
    """

    ends: np.ndarray
    frame: tuple[int, int]

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """The mask, (h, w) bool, with the frame brought to a size by nearest neighbour."""
        if size == self.frame:
            runs = np.diff(self.ends, prepend=0)
            return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[::-1]).T
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, self.frame, strict=True)
        )
        pixels = columns[:, None] * self.frame[0] + rows
        return (np.searchsorted(self.ends, pixels, side="right") % 2 == 1).T


Shape = Polygons | RunLengths


@dataclass(frozen=True, slots=True)
class Segmentations:
    """The instances of one photograph, as a file gives them.

    Args:
        drawings: I pairs (name for messages, segmentation).
        frame: (h, w) in which they are given; None for that of the photograph.
        source: Names the list of them, for messages.
        image: Id of the photograph in its COCO json, or None.
        predicted: Whether they are answers, which may cover no pixel.
    """

    drawings: Sequence[Drawing]
    frame: tuple[int, int] | None = None
    source: str = "segmentations"
    image: Any = None
    predicted: bool = False

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        """The masks.

        Args:
            size: (H, W) of the displayed photograph; None checks the segmentations and draws nothing.
            orientation: EXIF orientation of the photograph.

        Returns:
            (I, H, W) bool, or (I, 0, 0).

        Raises:
            UnreadableSample: A segmentation is malformed, covers no pixel, or does not fit the photograph.
        """
        import torch

        if size is not None and self.frame is not None:
            _lying(self.frame, size, orientation, self.source)
        shapes = [self._parsed(name, segmentation) for name, segmentation in self.drawings]
        if size is None:
            return torch.zeros(len(shapes), 0, 0, dtype=torch.bool)
        if len(shapes) * size[0] * size[1] > MOST_PIXELS:
            raise UnreadableSample(
                f"{self.source}: {len(shapes)} instances on {size[1]} x {size[0]} pixels are too many"
            )
        masks = torch.zeros(len(shapes), *size, dtype=torch.bool)
        for mask, shape, (name, _) in zip(masks, shapes, self.drawings, strict=True):
            lying = _lying(shape.frame or size, size, orientation, name)
            mask.copy_(torch.from_numpy(fit(shape.draw(lying)[None], size, orientation, name)[0]))
            if not (self.predicted or mask.any()):
                raise UnreadableSample(f"{name}: covers no pixel")
        return masks

    def _parsed(self, name: str, segmentation: Any) -> Shape:
        try:
            return parse(segmentation, self.frame)
        except ValueError as error:
            raise UnreadableSample(f"{name}: malformed segmentation: {error}") from error


def parse(segmentation: Any, frame: tuple[int, int] | None) -> Shape:
    """A segmentation as it can be drawn.

    Args:
        segmentation: See the head of this file. A single polygon may stand without the list around it, and points may be
            pairs. Polygons of one point or two are passed over, as COCO's own tools do.
        frame: (h, w) that the list states for its photograph, or None.

    Raises:
        ValueError: It is none, and why.
    """
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, frame)
    if not isinstance(segmentation, list) or not segmentation:
        given = "an empty one" if segmentation == [] else "none" if segmentation is None else shortened(segmentation)
        raise ValueError(f"{given}, where polygons or run lengths must stand; a box alone is no mask")
    flat = all(_is_number(value) for value in segmentation)
    pairs = len(segmentation) > 2 and all(_is_pair(value) for value in segmentation)
    rings = [_points(ring) for ring in ([segmentation] if flat or pairs else segmentation)]
    rings = [ring for ring in rings if len(ring) > 2]
    if not rings:
        raise ValueError("no polygon of 3 points or more")
    return Polygons(rings, frame)


def read_frame(height: Any, width: Any) -> tuple[int, int] | None:
    """(h, w) as a file states them; None where these are no sizes."""
    if not all(_is_whole(side) and 0 < side < LARGEST for side in (height, width)):
        return None
    return int(height), int(width)


def draw(segmentation: Any, frame: tuple[int, int]) -> np.ndarray:
    """One segmentation as a mask of its frame.

    Args:
        segmentation: See the head of this file.
        frame: (h, w).

    Returns:
        (h, w) bool.
    """
    return parse(segmentation, frame).draw(frame)


def fill(ring: np.ndarray, mask: np.ndarray) -> None:
    """Add a polygon to a mask: a pixel is inside where a line from its centre to the left crosses the outline an odd
    number of times, as even-odd filling has it. A centre on the outline belongs to what lies to its right, or below.

    The crossings of each row of pixels are marked at the first centre behind them; their running count tells the inside.
    So it takes the rows that each edge spans, where libraries ask each pixel about each edge.

    Args:
        ring: (V, 2) x and y in pixels, where the centre of the first pixel lies at (0.5, 0.5).
        mask: (h, w) bool, changed in place.
    """
    height, width = mask.shape
    x, y = ring.T
    next_x, next_y = np.roll(ring, -1, axis=0).T
    top, bottom = (np.clip(np.ceil(f(y, next_y) - 0.5), 0, height).astype(np.int64) for f in (np.minimum, np.maximum))
    slope = np.divide(next_x - x, next_y - y, out=np.zeros_like(x), where=next_y != y)
    left, right = (int(np.clip(edge, 0, width)) for edge in (np.floor(x.min()), np.ceil(x.max())))
    box = mask[top.min() : bottom.max(), left:right]
    crossings = np.zeros((box.shape[0], box.shape[1] + 1), dtype=np.uint8)  # counts wrap, and stay odd or even
    at_a_time = max(1, CROSSINGS // height)
    for start in range(0, len(ring), at_a_time):
        edges = slice(start, start + at_a_time)
        spans = bottom[edges] - top[edges]
        edge = np.repeat(np.arange(len(spans)) + start, spans)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(spans) - spans, spans) + top[edge]
        column = np.ceil(x[edge] + (row + 0.5 - y[edge]) * slope[edge] - 0.5)
        np.add.at(crossings, (row - top.min(), np.clip(column, left, right).astype(np.int64) - left), 1)
    box |= np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1


def _lying(frame: tuple[int, int], size: tuple[int, int], orientation: int, name: str) -> tuple[int, int]:
    """(h, w) of the photograph as it lies in a frame: before its EXIF turn where the frame is that."""
    lying = (size[1], size[0]) if lies_turned(frame, size, orientation, name) else size
    if max(frame) > MOST_TIMES * max(size):
        raise UnreadableSample(
            f"{name}: {frame[1]} x {frame[0]} pixels are more than {MOST_TIMES} times a photograph of "
            f"{size[1]} x {size[0]}"
        )
    return lying


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(each) for each in value)


def _points(ring: Any) -> np.ndarray:
    """The (V, 2) points of a polygon."""
    if isinstance(ring, list) and ring and all(_is_pair(value) for value in ring):
        ring = [value for pair in ring for value in pair]
    if not isinstance(ring, list) or not all(_is_number(value) for value in ring):
        raise ValueError(f"a polygon of other things than numbers: {shortened(ring)}")
    if len(ring) % 2:
        raise ValueError(f"a polygon of {len(ring)} numbers, which is no whole number of points")
    if not all(abs(value) <= FARTHEST for value in ring):
        raise ValueError(f"a polygon with a coordinate that is no number up to {FARTHEST:g}")
    return np.array(ring, dtype=np.float64).reshape(-1, 2)


def _run_lengths(encoding: dict[str, Any], stated: tuple[int, int] | None) -> RunLengths:
    counts, size = encoding.get("counts"), encoding.get("size")
    frame = read_frame(*size) if isinstance(size, list) and len(size) == 2 else None
    if frame is None:
        raise ValueError(f"run lengths of size {shortened(size)}, where [height, width] must stand")
    if stated not in (None, frame):
        raise ValueError(f"run lengths of {frame[1]} x {frame[0]} pixels on an image of {stated[1]} x {stated[0]}")
    area = frame[0] * frame[1]
    runs = run_lengths.from_strings([counts])[0] if isinstance(counts, str) else _whole_numbers(counts, 2 * area)
    ends = np.cumsum(runs)
    if not len(runs) or runs.min() < 0 or runs.max() > area or ends[-1] != area:
        raise ValueError(f"{sum(runs.tolist())} pixels in the run lengths of {frame[1]} x {frame[0]} = {area}")
    return RunLengths(ends, frame)


def _whole_numbers(counts: Any, most: int) -> np.ndarray:
    if isinstance(counts, list) and len(counts) > most:
        raise ValueError(f"{len(counts)} run lengths, more than the pixels could need")
    if not isinstance(counts, list) or not all(_is_whole(count) and abs(count) < LARGEST**2 for count in counts):
        raise ValueError(f"run lengths that are no list of whole numbers: {shortened(counts)}")
    return np.array(counts, dtype=np.int64)
