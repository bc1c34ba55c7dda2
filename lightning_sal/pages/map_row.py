"""One image of those that were scored: the photograph, its ground truth and the map beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIDE, GAP, PAPER = 208, 8, (255, 255, 255)  # pixels of a picture's longer side, and between two


def map_row(photograph: Path | None, truth: np.ndarray, found: np.ndarray) -> Image.Image:
    """The pictures in a row.

    Args:
        photograph: Its file; None where there is none.
        truth: (H, W) values in [0, 1].
        found: (H, W) values in [0, 1].
    """
    greys = [Image.fromarray((255 * values).astype(np.uint8)) for values in (truth, found)]
    pictures = [*([] if photograph is None else [_photograph(photograph)]), *greys]
    for picture in pictures:
        picture.thumbnail((SIDE, SIDE))
    height, width = max(p.height for p in pictures), sum(p.width + GAP for p in pictures) - GAP
    row, x = Image.new("RGB", (width, height), PAPER), 0
    for picture in pictures:
        row.paste(picture, (x, 0))
        x += picture.width + GAP
    return row


def _photograph(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at a part of its size
        return ImageOps.exif_transpose(image).convert("RGB")
