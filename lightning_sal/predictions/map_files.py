"""Saliency maps from files: images of any mode, and arrays of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightning_sal.datasets.decoding import UnreadableSample, check_file, unreadable
from lightning_sal.datasets.files import image_files, is_picture, visible
from lightning_sal.datasets.pixels import ROUNDING, fit, image_levels, mask_pixels, read_mode, type_range
from lightning_sal.predictions.arrays import SUFFIXES, array_levels, array_mode
from lightning_sal.predictions.resizing import resize_bilinear

if TYPE_CHECKING:
    from torch import Tensor

PNG = b"\x89PNG\r\n\x1a\n"
PNG_MODES = {(1, 0): "1", (16, 0): "I;16"}  # (bits, kind of colours) -> mode


class Levels(NamedTuple):
    """A map in the size of its ground truth.

    Args:
        values: (H, W) uint8, uint16 or float64, from 0 to `top`.
        top: What means 1.
        stored: (h, w) of the file.
    """

    values: np.ndarray
    top: float
    stored: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MapFile:
    """A saliency map.

    Args:
        path: The file.
        top: The value that means 1; None for the largest of its type, as `type_range` gives it.
    """

    path: Path
    top: int | None = None

    def levels(self, size: tuple[int, int]) -> Levels:
        """The values as they stand; one of another size is brought to (H, W) bilinearly.

        Raises:
            UnreadableSample: The file cannot be read, or a value exceeds `top`.
        """
        values, own = map_levels(self.path)
        top, largest = self.top or own, values.max()
        if largest > top + ROUNDING:
            raise UnreadableSample(f"{self.path}: a value of {largest:g} in a map of 0 to {top}")
        if largest > top:
            values = np.minimum(values, top)
        stored = (values.shape[0], values.shape[1])
        return Levels(values if stored == size else resize_bilinear(values, size), top, stored)

    def __call__(self, size: tuple[int, int]) -> tuple[Tensor, None]:
        """The map, (1, H, W) float64 from 0 to 1; see `levels`."""
        import torch

        values, top, _ = self.levels(size)
        return torch.from_numpy(values / top)[None], None


@dataclass(frozen=True, slots=True)
class MasksOfImage:
    """The masks of one image, a file each.

    Args:
        paths: The N files.
    """

    paths: Sequence[Path]

    def levels(self, size: tuple[int, int]) -> Levels:
        """Their union, brought to (H, W) by nearest neighbour; 1 inside, and nothing at all where there is no file.

        Raises:
            UnreadableSample: A file cannot be read, or has another aspect ratio.
        """
        union, stored = np.zeros(size, dtype=bool), size
        for path in self.paths:
            mask = mask_pixels(path)
            stored = stored if mask.shape == size else (mask.shape[0], mask.shape[1])
            union |= fit(mask[None], size, 1, path)[0]
        return Levels(union.view(np.uint8), 1, stored)

    def __call__(self, size: tuple[int, int]) -> tuple[Tensor, None]:
        """The masks, (N, H, W) bool."""
        import torch

        masks = [mask_pixels(path, size) for path in self.paths]
        return torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)), None


def map_files(folder: Path) -> list[Path]:
    """The images and arrays right below, sorted."""
    return image_files(folder, _is_map)


def _is_map(name: str) -> bool:
    return is_picture(name) or (visible(name) and Path(name).suffix.lower() in SUFFIXES)


def map_levels(path: Path) -> tuple[np.ndarray, int]:
    """The values of a map as they stand, (h, w) uint8, uint16 or float64, and the largest that its type means.

    Raises:
        UnreadableSample: It cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        values, mode = array_levels(path)
        return values, type_range(mode)
    return image_levels(path)


def map_mode(path: Path) -> str:
    """Pillow's mode of a map, from the header alone; "L" for any PNG of 8 bits.

    The first bytes of a PNG tell, in a tenth of the time that it takes to open it.

    Raises:
        UnreadableSample: It cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return array_mode(path)
    try:
        check_file(path)
        with path.open("rb") as file:
            head = file.read(len(PNG) + 18)
    except OSError as error:
        raise unreadable(path, error) from error
    if head.startswith(PNG) and len(head) == len(PNG) + 18:
        return PNG_MODES.get((head[-2], head[-1]), "L")
    return read_mode(path)
