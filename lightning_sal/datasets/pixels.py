"""Image files as arrays: whatever the mode, one frame, the photograph's as it is displayed; nothing of torch.

Legend: H x W pixels of the displayed photograph, h x w pixels as the mask file stores them, I instances.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

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
PNG_START = 8  # bytes before the first chunk


def image_pixels(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """The photograph as it is displayed; see `lightning_sal.datasets.images.read_image`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = _decode(path, content)
    if image.mode.startswith(("I", "F")):
        levels = _levels(image, path)
        grey = np.rint(levels * (255 / _range(levels))).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = _converted(image, "RGBA", path)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(_converted(image, "RGB", path))


def mask_levels(path: str | Path, size: tuple[int, int] | None = None, orientation: int = 1) -> tuple[np.ndarray, int]:
    """The values of a mask file as they stand, in the frame of the photograph.

    A value is the brightest channel of its pixel. A palette file is read by the colours that it shows; where these are
    not greys they name labels, and every label but black is 255. Transparent is 0; where all colours are black, the
    opacity itself is the mask.

    Args:
        path: The mask file.
        size: (H, W) of the displayed photograph, to which the mask is brought by nearest neighbour; None keeps the
            size of the file.
        orientation: EXIF orientation of the photograph, 1 to 8, as `read_orientation` gives it. A mask drawn in the
            frame of the photograph before its turn is turned along.

    Returns:
        (H, W) uint8, uint16 or float64; and what means 1, the smallest of 1, 255 and 65535 that holds the file's largest
        value.

    Raises:
        UnreadableSample: The file cannot be read, or has another aspect ratio than the photograph.
    """
    levels = _levels(_decode(path), path)
    return fit(levels[None], size, orientation, path)[0], _range(levels)


def mask_pixels(path: str | Path, size: tuple[int, int] | None = None, orientation: int = 1) -> np.ndarray:
    """A mask of any mode, True inside the object: where `mask_levels` are above 128 / 255 of their range.

    Returns:
        (H, W) bool.
    """
    return cut(*mask_levels(path, size, orientation))


def cut(levels: np.ndarray, top: int) -> np.ndarray:
    """What of a mask is object.

    Args:
        levels: As `mask_levels` gives them, of any shape.
        top: What means 1.

    Returns:
        Bool, of the same shape.
    """
    if levels.dtype.kind == "f":
        return levels * 255 > CUT * top
    return levels > CUT * top // 255  # the same for whole numbers, which stay as small as they are


def image_levels(path: str | Path) -> tuple[np.ndarray, int]:
    """The values of an image as they stand, (h, w) uint8, uint16 or float64, and the largest that its type means."""
    image = _decode(path)
    return _levels(image, path), type_range(image.mode)


def type_range(mode: str) -> int:
    """The value that means 1 in a map of one of Pillow's modes: 1 of 1 bit and of floats, 255 of 8 bits, 65535 of more."""
    return {"1": 1, "F": 1}.get(mode, 65535 if mode.startswith("I") else 255)


def read_mode(path: str | Path) -> str:
    """Pillow's mode of a file, from its header alone.

    Raises:
        UnreadableSample: The file cannot be read.
    """
    with open_image(path) as image:
        return image.mode


def instance_pixels(path: str | Path, size: tuple[int, int] | None = None, orientation: int = 1) -> np.ndarray:
    """The instances of a colour-coded file; see `lightning_sal.datasets.images.read_instances_png`.

    Returns:
        (I, H, W) bool in ascending order of colour (or index).
    """
    codes = _codes(_decode(path), path)
    colours = np.unique(codes[codes >= 0])
    with open_image(path) as image:
        lossy = image.format in LOSSY or image.info.get("compression") == "jpeg"
    check_colours(codes, colours, path, lossy)
    return fit(codes[None] == colours[:, None, None], size, orientation, path)


def shows_colour(path: str | Path) -> bool:
    """Whether any pixel of a file is other than grey."""
    return bool(np.ptp(np.asarray(_converted(_decode(path), "RGB", path)), axis=2).any())


def read_orientation(path: str | Path, content: bytes | None = None) -> int:
    """EXIF orientation of the photograph, 1 (upright) to 8; arguments as for `read_image`."""
    return read_frame(path, content)[1]


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
    return read_frame(path, content)[0]


def read_frame(path: str | Path, content: bytes | None = None) -> tuple[tuple[int, int], int]:
    """(H, W) of the photograph as it is displayed, and its EXIF orientation; from the header alone.

    Arguments as for `read_image`.

    Raises:
        UnreadableSample: As for `read_image`.
    """
    try:
        with open_image(path, content) as image:
            orientation, height, width = image.getexif().get(ORIENTATION, 1), image.height, image.width
    except DECODER_ERRORS as error:
        raise unreadable(path, error) from error
    return ((width, height) if orientation in TURNS else (height, width)), orientation


def fit(masks: np.ndarray, size: tuple[int, int] | None, orientation: int, path: str | Path) -> np.ndarray:
    """Masks brought into the frame of the displayed photograph.

    Args:
        masks: (N, h, w) of any type, N >= 0.
        size: (H, W) of the displayed photograph, or None for no change.
        orientation: EXIF orientation of the photograph.
        path: Named where the masks do not fit.

    Returns:
        (N, H, W), contiguous.
    """
    if size is None:
        return np.ascontiguousarray(masks)
    if lies_turned((masks.shape[1], masks.shape[2]), size, orientation, path):
        transpose, quarters = TURNS[orientation]
        masks = np.rot90(masks.swapaxes(1, 2) if transpose else masks, quarters, axes=(1, 2))
    if masks.shape[1:] != size:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, masks.shape[1:], strict=True)
        )
        masks = masks[:, rows[:, None], columns]
    return np.ascontiguousarray(masks)


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
            if isinstance(image, PngImagePlugin.PngImageFile):
                _check_sums(image)
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except DECODER_ERRORS as error:
        raise unreadable(path, error) from error


def _check_sums(image: PngImagePlugin.PngImageFile) -> None:
    """Refuse a PNG that is cut off behind its last pixel, or corrupt, which decodes without complaint.

    It is what Pillow's own `verify` does, which would have the file opened a second time.
    """
    file = image.fp
    assert file is not None
    place = file.tell()
    file.seek(PNG_START)
    PngImagePlugin.ChunkStream(file).verify()
    file.seek(place)


def _converted(image: Image.Image, mode: str, path: str | Path) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError as error:  # of a mode that has no way to colours, as LAB
        raise unreadable(path, error) from error


def _range(levels: np.ndarray) -> int:
    return next(top for top in RANGES if levels.max() <= top)


def _levels(image: Image.Image, path: str | Path) -> np.ndarray:
    """(h, w) brightness of each pixel, uint8, uint16 or float64; see `mask_levels`."""
    if image.mode == "1":
        return np.asarray(image).view(np.uint8) & 1  # Pillow writes True as 255
    if image.mode == "L":
        return np.asarray(image)
    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image)
        if not (levels.min() >= 0 and levels.max() <= 65535):
            raise UnreadableSample(f"{path}: mode {image.mode} with values outside 0 to 65535")
        return levels.astype(np.float64 if levels.dtype.kind == "f" else np.uint16)
    pixels = np.asarray(_converted(image, "RGBA", path))
    red, green, blue, alpha = (pixels[:, :, channel] for channel in range(4))
    levels = np.maximum(np.maximum(red, green), blue)
    if image.mode == "P" and (levels != np.minimum(np.minimum(red, green), blue)).any():
        levels = np.where(levels > 0, np.uint8(255), np.uint8(0))
    if not levels.any() and (alpha != alpha.flat[0]).any():
        return np.ascontiguousarray(alpha)
    return (levels.astype(np.uint16) * alpha // 255).astype(np.uint8)


def _codes(image: Image.Image, path: str | Path) -> np.ndarray:
    """(h, w) one number a colour, or palette index; -1 for the background."""
    pixels = np.asarray(image).astype(np.int64)
    if image.mode != "P" and pixels.ndim == 2:
        return np.where(pixels == 0, -1, pixels)
    red, green, blue, alpha = np.moveaxis(np.asarray(_converted(image, "RGBA", path)).astype(np.int64), 2, 0)
    colours = (red << 16) + (green << 8) + blue
    return np.where((colours == 0) | (alpha == 0), -1, pixels if image.mode == "P" else colours)
