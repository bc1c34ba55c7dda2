"""Small copies of image files inside a page; what cannot be read is left out, and the caller says so."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lightning_sal.pages.html import data_uri

# Those that Pillow reads itself: it hands some of the others to programs outside.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
RANGES = (1, 255, 65535)  # largest values of masks: of labels, of 8 bits, of 16 bits


def thumbnail(path: Path, side: int, *, as_map: bool = False) -> str | None:
    """A file as the address of a JPEG; None where it is no image that can be read.

    Args:
        path: Of the file, of any origin.
        side: Pixels of its longer side, at most.
        as_map: Whether it is a mask or a map, which is brought to its range: 1, 255 or 65535, the smallest that holds it.
    """
    if not path.is_file():  # a pipe or a device would be waited for
        return None
    Image.init()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                if as_map:
                    image = _in_range(image)
                image.thumbnail((side, side))
                return data_uri(_on_white(ImageOps.exif_transpose(image)), quality=75)
        except Exception:  # whatever a decoder says of a file that is broken
            return None


def kept_mask(text: str) -> str | None:
    """What `lightning_sal.pages.pictures.small_masks` gave, of any origin, as an address; None where it is no picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(base64.b64decode(text)), formats=["PNG"]) as image:
                return data_uri(image, "PNG")
        except Exception:  # as above
            return None


def _in_range(image: Image.Image) -> Image.Image:
    """A map of greys from 0 to 255; one of colours as it is."""
    if image.mode not in ("1", "L") and not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    levels = np.asarray(image, dtype=np.float64)
    top = next((top for top in RANGES if levels.max() <= top), levels.max())
    return Image.fromarray((levels.clip(0) * (255 / top)).round().astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _in_range(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
