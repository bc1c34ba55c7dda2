"""Images as they are sent to other people's models: scaled down, as JPEG."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

from lightning_sal.frames import Shrunk

QUALITY = 90  # of JPEG


def shrunk(image: Tensor, side: int) -> Image.Image:
    """An image, scaled down to a longest side where it is larger.

    Args:
        image: (H, W, 3) uint8.
        side: Pixels.
    """
    height, width = Shrunk(side).extent((image.shape[0], image.shape[1]))
    whole = Image.fromarray(image.numpy())
    return whole.resize((width, height), Image.Resampling.LANCZOS) if whole.size != (width, height) else whole


def as_jpeg(image: Image.Image) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
