"""Photographs and masks from files, as tensors: `pixels` reads them, and imports no torch.

Legend: H x W pixels of the displayed photograph, I instances.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.pixels import (
    displayed_size,
    fit,
    image_pixels,
    instance_pixels,
    lies_turned,
    mask_pixels,
    read_orientation,
    read_size,
    shows_colour,
)

if TYPE_CHECKING:  # listing the files of a dataset does not wait for torch
    from torch import Tensor

__all__ = [
    "UnreadableSample",
    "displayed_size",
    "fit_masks",
    "lies_turned",
    "read_image",
    "read_instances_png",
    "read_mask",
    "read_orientation",
    "read_size",
    "shows_colour",
]


def read_image(path: str | Path, content: bytes | None = None) -> Tensor:
    """The photograph as it is displayed: EXIF orientation applied, any mode brought to RGB.

    16-bit greys are scaled to 8 bits; transparency is laid over white, as Qwen-VL's own preprocessing does.

    Args:
        path: The file.
        content: Its bytes, where it lies inside another one; `path` is then its name alone.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UnreadableSample: The file is missing, truncated, not an image, or larger than PIL's limit on pixels.
    """
    return _tensor(image_pixels(path, content))


def read_mask(path: str | Path, size: tuple[int, int] | None = None, orientation: int = 1) -> Tensor:
    """A mask of any mode, True inside the object.

    A pixel counts where its brightest channel is above 128 / 255 of the range, as in the toolboxes that papers use; the
    range is the smallest of 1, 255 and 65535 that holds the file's largest value. So multi-valued masks are cut at half
    (128 is background, 129 object), and files that hold the labels 0 and 1 (or 8-bit values in 16 bits) mean what they
    say. A palette file is read by the colours that it shows; where these are not greys they name labels, and every
    label but black is object. Transparent is background; where all colours are black, the opacity itself is the mask.

    Args:
        path: The mask file.
        size: (H, W) of the displayed photograph, to which the mask is brought by nearest neighbour; None keeps the
            size of the file.
        orientation: EXIF orientation of the photograph, 1 to 8, as `read_orientation` gives it. A mask drawn in the
            frame of the photograph before its turn is turned along.

    Returns:
        (H, W) bool.

    Raises:
        UnreadableSample: As for `read_image`, or the mask has another aspect ratio than the photograph.
    """
    return _tensor(mask_pixels(path, size, orientation))


def read_instances_png(path: str | Path, size: tuple[int, int] | None = None, orientation: int = 1) -> Tensor:
    """The instances of a colour-coded file: one colour an instance, black (or transparent) the background.

    Palette files are told apart by index, so that two instances may show the same colour.

    Args:
        path: The colour-coded file; lossless, because every colour is an instance.
        size: As for `read_mask`.
        orientation: As for `read_mask`.

    Returns:
        (I, H, W) bool in ascending order of colour (or index); I = 0 for an empty ground truth.

    Raises:
        UnreadableSample: As for `read_mask`, or most colours are no objects but seams of others, as JPEG and smoothing
            leave them.
    """
    return _tensor(instance_pixels(path, size, orientation))


def fit_masks(masks: np.ndarray, size: tuple[int, int] | None, orientation: int, path: str | Path) -> Tensor:
    """Masks brought into the frame of the displayed photograph; arguments as for `pixels.fit`.

    Returns:
        (N, H, W) bool.
    """
    return _tensor(fit(masks, size, orientation, path))


def _tensor(array: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(array)
