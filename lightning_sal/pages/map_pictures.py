"""A saliency map beside its photograph and the ground truth: pictures of the size of a page; nothing of torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIDE = 480  # pixels of a picture's longer side
PHOTOGRAPH, TRUTH, FOUND = "photograph", "ground truth", "prediction"

Pictures = dict[str, Image.Image]  # what it shows -> the picture


def of_maps(photograph: Path | None, truth: np.ndarray, found: np.ndarray) -> Pictures:
    """A saliency map as it is, in grey.

    Args:
        photograph: Its file; None where there is none.
        truth: (H, W) values in [0, 1].
        found: (H, W) values in [0, 1].
    """
    pictures = {} if photograph is None else {PHOTOGRAPH: _read(photograph)}
    for name, values in ((TRUTH, truth), (FOUND, found)):
        pictures[name] = Image.fromarray((255 * values).astype(np.uint8))
    for picture in pictures.values():
        picture.thumbnail((SIDE, SIDE))
    return pictures


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at a part of its size
        return ImageOps.exif_transpose(image).convert("RGB")
