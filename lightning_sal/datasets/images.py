"""Photographs and masks from files: whatever the mode, one frame, the photograph's as it is displayed.

Legend: H x W pixels of the displayed photograph, h x w pixels as the mask file stores them, I instances.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from lightning_sal.datasets.colours import check_colours
from lightning_sal.datasets.decoding import DECODER_ERRORS, UnreadableSample, open_image, unreadable

ORIENTATION = 0x0112
# EXIF orientation -> (whether to transpose, quarter turns counter-clockwise after it). Orientations 2 to 4 keep the
# size, so the size of a mask cannot tell whether it was drawn before or after them: it counts as drawn after.
TURNS = {5: (True, 0), 6: (False, 3), 7: (True, 2), 8: (False, 1)}
SAME_ASPECT = 0.05
RANGES = (1, 255, 65535)  # largest values: of labels, of 8 bits, of 16 bits
LOSSY = ("JPEG", "MPO")  # formats that are so whatever they show
ROUNDING = 1e-6  # by which floats may exceed 1
CUT = 128  # of 255, the last value that is background, as in the toolboxes


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
    image = _decode(path, content)
    if image.mode.startswith(("I", "F")):
        levels = _levels(image, path)
        grey = np.rint(levels * (255 / _range(levels))).astype(np.uint8)
        return torch.from_numpy(np.repeat(grey[:, :, None], 3, axis=2))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB")))


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
    levels = _levels(_decode(path), path)
    return fit_masks(levels[None] * 255 > CUT * _range(levels), size, orientation, path)[0]


def read_map(path: str | Path, size: tuple[int, int], top: int | None = None) -> Tensor:
    """A saliency map of any mode, from 0 to 1.

    Args:
        path: The file.
        size: (H, W) to which it is brought bilinearly where its own size differs.
        top: The value that means 1; by default the largest of its type, as `type_range` gives it.

    Returns:
        (H, W) float64.

    Raises:
        UnreadableSample: As for `read_image`, or a value exceeds `top`.
    """
    levels, own = map_levels(path)
    top = top or own
    if levels.max() > top + ROUNDING:
        raise UnreadableSample(f"{path}: a value of {levels.max():g} in a map of 0 to {top}")
    values = torch.from_numpy(np.minimum(levels / top, 1))
    if values.shape == size:
        return values
    return F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def map_levels(path: str | Path) -> tuple[np.ndarray, int]:
    """The values of a saliency map as they stand, (h, w), and the largest that its type means."""
    image = _decode(path)
    return _levels(image, path), type_range(image.mode)


def type_range(mode: str) -> int:
    """The value that means 1 in a map of one of Pillow's modes: 1 of 1 bit and of floats, 255 of 8 bits, 65535 of more."""
    return {"1": 1, "F": 1}.get(mode, 65535 if mode.startswith("I") else 255)


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
    codes = _codes(_decode(path))
    colours = np.unique(codes[codes >= 0])
    with open_image(path) as image:
        lossy = image.format in LOSSY or image.info.get("compression") == "jpeg"
    check_colours(codes, colours, path, lossy)
    return fit_masks(codes[None] == colours[:, None, None], size, orientation, path)


def shows_colour(path: str | Path) -> bool:
    """Whether any pixel of a file is other than grey."""
    return bool(np.ptp(np.asarray(_decode(path).convert("RGB")), axis=2).any())


def read_orientation(path: str | Path, content: bytes | None = None) -> int:
    """EXIF orientation of the photograph, 1 (upright) to 8; arguments as for `read_image`."""
    try:
        with open_image(path, content) as image:
            return image.getexif().get(ORIENTATION, 1)
    except DECODER_ERRORS as error:
        raise unreadable(path, error) from error


def read_size(path: str | Path, content: bytes | None = None) -> tuple[int, int]:
    """(H, W) of the photograph as the file stores it, before any turn that EXIF tells; from the header alone.

    Arguments as for `read_image`.

    Raises:
        UnreadableSample: As for `read_image`.
    """
    with open_image(path, content) as image:
        return image.height, image.width


def displayed_size(path: str | Path, content: bytes | None = None) -> tuple[int, int]:
    """(H, W) of the photograph as it is displayed, which is the frame of boxes and points; from the header alone.

    Arguments as for `read_image`.

    Raises:
        UnreadableSample: As for `read_image`.
    """
    height, width = read_size(path, content)
    return (width, height) if read_orientation(path, content) in TURNS else (height, width)


def fit_masks(masks: np.ndarray, size: tuple[int, int] | None, orientation: int, path: str | Path) -> Tensor:
    """Masks brought into the frame of the displayed photograph.

    Args:
        masks: (N, h, w) bool, N >= 0.
        size: (H, W) of the displayed photograph, or None for no change.
        orientation: EXIF orientation of the photograph.
        path: Named where the masks do not fit.

    Returns:
        (N, H, W) bool.
    """
    if size is None:
        return torch.from_numpy(np.ascontiguousarray(masks))
    if lies_turned((masks.shape[1], masks.shape[2]), size, orientation, path):
        transpose, quarters = TURNS[orientation]
        masks = np.rot90(masks.swapaxes(1, 2) if transpose else masks, quarters, axes=(1, 2))
    if masks.shape[1:] != size:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, masks.shape[1:], strict=True)
        )
        masks = masks[:, rows[:, None], columns]
    return torch.from_numpy(np.ascontiguousarray(masks))


def lies_turned(stored: tuple[int, int], size: tuple[int, int], orientation: int, path: str | Path) -> bool:
    """Whether masks were drawn on the photograph before its turn.

    Args:
        stored: (h, w) of the masks.
        size: (H, W) of the displayed photograph.
        orientation: EXIF orientation of the photograph.
        path: Named where the masks do not fit.

    Raises:
        UnreadableSample: They have another aspect ratio, turned or not.
    """
    turned = (
        stored != size and orientation in TURNS and (stored == (size[1], size[0]) or not _same_aspect(stored, size))
    )
    if not _same_aspect(stored, (size[1], size[0]) if turned else size):
        raise UnreadableSample(
            f"{path}: {stored[1]} x {stored[0]} pixels do not fit a photograph of {size[1]} x {size[0]}"
        )
    return turned


def _same_aspect(a: tuple[int, ...], b: tuple[int, int]) -> bool:
    return abs(np.log(a[0] * b[1] / (a[1] * b[0]))) <= SAME_ASPECT


def _decode(path: str | Path, content: bytes | None = None) -> Image.Image:
    """The decoded file, turned as its own EXIF says."""
    try:
        with open_image(path, content) as image:
            image.verify()  # a PNG that is cut off behind its last pixel, or corrupt, decodes without complaint
        with open_image(path, content) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except DECODER_ERRORS as error:
        raise unreadable(path, error) from error


def _range(levels: np.ndarray) -> int:
    return next(top for top in RANGES if levels.max() <= top)


def _levels(image: Image.Image, path: str | Path) -> np.ndarray:
    """(h, w) brightness of each pixel; see `read_mask`."""
    if image.mode == "1" or image.mode == "L":
        return np.asarray(image).astype(np.int64)
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image)
        if not (levels.min() >= 0 and levels.max() <= 65535):
            raise UnreadableSample(f"{path}: mode {image.mode} with values outside 0 to 65535")
        return levels.astype(np.float64)
    pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
    colour, alpha = pixels[:, :, :3], pixels[:, :, 3]
    levels = colour.max(axis=2)
    if image.mode == "P" and (levels != colour.min(axis=2)).any():
        levels = np.where(levels > 0, 255, 0)
    if not levels.any() and (alpha != alpha.flat[0]).any():
        return alpha
    return levels * alpha // 255


def _codes(image: Image.Image) -> np.ndarray:
    """(h, w) one number a colour, or palette index; -1 for the background."""
    pixels = np.asarray(image).astype(np.int64)
    if image.mode != "P" and pixels.ndim == 2:
        return np.where(pixels == 0, -1, pixels)
    red, green, blue, alpha = np.moveaxis(np.asarray(image.convert("RGBA")).astype(np.int64), 2, 0)
    colours = (red << 16) + (green << 8) + blue
    return np.where((colours == 0) | (alpha == 0), -1, pixels if image.mode == "P" else colours)
