"""In which units places are stated: pixels of the original image everywhere, but for what a policy reads and writes.

A policy has units of its own: pixels of the image as it is shown, or 0 to 1000 along each side. They are brought to pixels
of the original image, and back, here alone; so data, rewards and evaluation mean the same place by the same numbers.

Legend: an image of H x W pixels, whose size in the units of a frame is h x w.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Size = tuple[int, int]  # (H, W)


class Frame(Protocol):
    """The units in which places are stated."""

    def extent(self, size: Size) -> Size:
        """The size (h, w) that an image of (H, W) pixels has in these units."""
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """Pixels of the original image."""

    def extent(self, size: Size) -> Size:
        """(H, W) itself."""
        return size


@dataclass(frozen=True, slots=True)
class Square:
    """Every image as a square of one size.

    Args:
        side: Units of a side, > 0: 1000 for Qwen3-VL.
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"a square frame of side {self.side} is none: give 1 or more")

    def extent(self, size: Size) -> Size:
        """(side, side), whatever the image."""
        return self.side, self.side


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Pixels of an image that is scaled down, where it is larger, to a longest side.

    Args:
        side: Pixels of the longest side, > 0.
    """

    side: int

    def extent(self, size: Size) -> Size:
        """The (h, w) that is left of (H, W), each a pixel at least."""
        scale = min(1.0, self.side / max(size))
        height, width = (max(1, round(each * scale)) for each in size)
        return height, width


ORIGINAL = Original()


def to_original(values: Sequence[float], frame: Frame, size: Size) -> tuple[float, ...]:
    """Places in the units of a frame -> in pixels of the original image: x W / w and y H / h.

    Args:
        values: Coordinates x, y, x, y, ...
        frame: Their units.
        size: (H, W) of the original image.

    Example:
        >>> to_original((84, 210, 420, 840), Square(840), (480, 640))
        (64.0, 120.0, 320.0, 480.0)
    """
    return _scaled(values, frame.extent(size), size)


def from_original(values: Sequence[float], frame: Frame, size: Size) -> tuple[float, ...]:
    """Places in pixels of the original image -> in the units of a frame; the inverse of `to_original`."""
    return _scaled(values, size, frame.extent(size))


def _scaled(values: Sequence[float], old: Size, new: Size) -> tuple[float, ...]:
    if old == new:
        return tuple(map(float, values))
    return tuple(float(value) * new[1 - at % 2] / old[1 - at % 2] for at, value in enumerate(values))
