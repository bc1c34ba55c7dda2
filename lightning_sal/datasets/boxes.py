"""The boxes and points of a photograph as a file states them, checked and brought to its pixels.

What they are in, pixels, shares of width and height, or pixels of the image squashed to a stated size, is said by whoever
lists them, never guessed; values that cannot be what they are said to be are refused.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from lightning_sal.datasets.decoding import UnreadableSample

if TYPE_CHECKING:
    from torch import Tensor

SLACK = 0.05  # share of width or height by which a box may stick out of its image, and is clipped: annotators round
OTHER_UNIT = 1.5  # a share above it is none; pixels below it, not whole, are none
LARGEST = 1e9  # pixels; Python's whole numbers have no end
ASPECT = 0.05  # by which the shape of an image may differ from the one that is stated for its shares


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of a photograph, as listed.

    Args:
        rows: x0, y0, x1, y1 of each, as they were read; what is none of that is a fault.
        normalised: Whether they are shares of the width and height, from 0 to 1, and not pixels.
        frame: (H, W) of the image that they were drawn on, where the list states it.
        extent: (h, w) of the whole image in the units of the rows, where these are neither pixels nor shares, such as
            (840, 840) for an image that was squashed to that square.
    """

    rows: tuple[Any, ...]
    normalised: bool = False
    frame: tuple[int, int] | None = None
    extent: tuple[int, int] | None = None

    def read(self, size: tuple[int, int]) -> Tensor:
        """The boxes in pixels, clipped to the image where they stick out of it a little.

        Args:
            size: (H, W) of the photograph.

        Returns:
            (N, 4) float32: x0, y0, x1, y1.

        Raises:
            UnreadableSample: Some are none; the line names them all.
        """
        import torch

        if faults := list(self.faults(size)):
            raise UnreadableSample("; ".join(faults))
        pixels = to_pixels(self.rows, self._bounds(size) or size, size, 4)
        return pixels.clamp(torch.zeros(4), torch.tensor(size[::-1] * 2)).float()

    def faults(self, size: tuple[int, int] | None = None) -> Iterator[str]:
        """A line for each box that is none, as far as it can be told.

        Args:
            size: (H, W) of the photograph; None where it cannot be read.
        """
        if size and self.frame and not self._same_frame(size):
            yield f"boxes drawn on {_shape(self.frame)} pixels, and the image has {_shape(size)}"
        for number, row in enumerate(self.rows, 1):
            if fault := self._fault(row, size):
                yield f"box {number}, {shortened(row)}: {fault}"

    def clipped(self, size: tuple[int, int] | None = None) -> int:
        """How many stick out of the image, of (H, W) pixels, where that is known."""
        height, width = self._bounds(size or self.frame) or (math.inf, math.inf)
        sound = [row for row in self.rows if self._fault(row, size) is None]
        return sum(min(row[:2]) < 0 or row[2] > width or row[3] > height for row in sound)

    def kinds(self, size: tuple[int, int] | None = None) -> Counter[str]:
        """How many boxes are reversed, empty, outside of the image and so on, by that word; arguments as for `faults`."""
        faults = (self._fault(row, size) for row in self.rows)
        return Counter(re.split("[:,]", fault)[0] for fault in faults if fault)

    def _fault(self, row: Any, size: tuple[int, int] | None) -> str | None:
        """Why a row is no box, or None."""
        if not isinstance(row, list | tuple) or len(row) != 4 or not all(map(is_number, row)):
            return "not 4 numbers"
        x0, y0, x1, y1 = row
        if self.normalised and max(map(abs, row)) > OTHER_UNIT:
            return "said to be normalised, and no share of a width or height: is it in pixels?"
        if not self.normalised and max(row) <= OTHER_UNIT and any(value % 1 for value in row):
            return "said to be in pixels, and less than two of them: is it normalised?"
        if x1 < x0 or y1 < y0:
            return "reversed: x0, y0, x1, y1 with x0 < x1 and y0 < y1 must stand"
        if x0 == x1 or y0 == y1:
            return "empty"
        if (bounds := self._bounds(size)) is None:
            return None
        height, width = bounds
        if x0 < -SLACK * width or y0 < -SLACK * height or x1 > (1 + SLACK) * width or y1 > (1 + SLACK) * height:
            shown = self.extent or size
            return f"outside of the image, {_shape(shown)} pixels" if shown else "outside of the image"
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            return "outside of the image"
        return None

    def _bounds(self, size: tuple[int, int] | None) -> tuple[int, int] | None:
        """(h, w) of the image in the units of the rows, where that is known."""
        return (1, 1) if self.normalised else self.extent or size

    def _same_frame(self, size: tuple[int, int]) -> bool:
        """Whether a photograph of (H, W) pixels may be the one that the boxes were drawn on, or that one squashed."""
        (h, w), (height, width) = self.frame or size, size
        if not (self.normalised or self.extent):
            return (h, w) == size
        return size == self.extent or abs(h * width - w * height) <= ASPECT * w * height


@dataclass(frozen=True, slots=True)
class Points:
    """The points of a photograph, as listed.

    Args:
        rows: x, y of each, as they were read; what is none of that is a fault.
        extent: As for `Boxes`; None for pixels of the photograph.
    """

    rows: tuple[Any, ...]
    extent: tuple[int, int] | None = None

    def read(self, size: tuple[int, int]) -> Tensor:
        """The points in pixels.

        Args:
            size: (H, W) of the photograph.

        Returns:
            (N, 2) float32: x, y.

        Raises:
            UnreadableSample: Some are none; the line names them all.
        """
        if faults := list(self.faults(size)):
            raise UnreadableSample("; ".join(faults))
        return to_pixels(self.rows, self.extent or size, size, 2).float()

    def faults(self, size: tuple[int, int] | None = None) -> Iterator[str]:
        """A line for each point that is none, as far as it can be told; as for `Boxes`."""
        height, width = self.extent or size or (math.inf, math.inf)
        for number, row in enumerate(self.rows, 1):
            if not isinstance(row, list | tuple) or len(row) != 2 or not all(map(is_number, row)):
                yield f"point {number}, {shortened(row)}: not 2 numbers"
            elif not (0 <= row[0] <= width and 0 <= row[1] <= height):
                yield f"point {number}, {shortened(row)}: outside of the image"


def outside_of_their_boxes(boxes: Tensor, points: Tensor) -> int:
    """How many points lie outside of the box of their own number; 0 where there is not one for each box.

    Args:
        boxes: (N, 4): x0, y0, x1, y1.
        points: (N, 2): x, y.
    """
    if len(boxes) != len(points):
        return 0
    return int(((points < boxes[:, :2]) | (points > boxes[:, 2:])).any(1).sum())


def to_pixels(rows: Sequence[Any], extent: tuple[int, int], size: tuple[int, int], width: int) -> Tensor:
    """Coordinates x, y, ... in pixels of a photograph.

    Args:
        rows: N rows of coordinates.
        extent: (h, w) of the whole image in their units.
        size: (H, W) of the photograph.
        width: Numbers of a row, 2 or 4.

    Returns:
        (N, width) float64.
    """
    import torch

    scale = torch.tensor([size[1] / extent[1], size[0] / extent[0]], dtype=torch.float64)
    return torch.tensor(rows, dtype=torch.float64).view(-1, width) * scale.repeat(width // 2)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a coordinate may be: finite, and of no more digits than a float keeps."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _shape(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
