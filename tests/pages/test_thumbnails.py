"""Small copies of image files: what they show, and that what cannot be read is None and breaks nothing."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

from lightning_sal.pages.thumbnails import thumbnail


def opened(uri):
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_longer_side_is_bounded_and_the_photograph_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (100, 50), "red").save(tmp_path / "a.jpg", exif=exif)
    shown = opened(thumbnail(tmp_path / "a.jpg", 40))
    assert shown.size == (20, 40)
    assert shown.getpixel((10, 20)) == pytest.approx((254, 0, 0), abs=3)


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        (np.array([[0, 1]], np.uint8), (0, 255)),  # labels
        (np.array([[0, 204]], np.uint8), (0, 204)),
        (np.array([[0, 32768]], np.uint16), (0, 128)),
        (np.array([[0, 0.5]], np.float32), (0, 128)),
        (np.array([[False, True]]), (0, 255)),
    ],
)
def test_a_map_is_shown_in_its_range(tmp_path, levels, shown):
    path = tmp_path / "map.tiff"
    Image.fromarray(levels.repeat(16, 0).repeat(16, 1)).save(path)
    pixels = np.asarray(opened(thumbnail(path, 64, as_map=True)).convert("L"))
    assert (pixels[8, 4], pixels[8, -4]) == pytest.approx(shown, abs=3)


def test_transparent_is_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert opened(thumbnail(tmp_path / "a.png", 8)).getpixel((4, 4)) == (255, 255, 255)


def test_what_cannot_be_read_is_none(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # Pillow runs a program for it
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("text.jpg", "cut.png", "a.eps", "pipe.jpg", "missing.jpg", "."):
        assert thumbnail(tmp_path / name, 8) is None
