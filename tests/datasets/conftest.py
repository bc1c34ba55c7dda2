from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes pixels (an array, a PIL image, or None for a 12 x 9 photograph) below the test's folder."""

    def write(name: str, pixels: np.ndarray | Image.Image | None = None, **options) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            pixels = np.arange(9 * 12 * 3, dtype=np.uint8).reshape(9, 12, 3)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path, **options)
        return path

    return write
