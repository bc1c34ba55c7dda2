"""Colours of an instance file that are objects, and those that JPEG and smoothing leave."""

import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lightning_sal.datasets.images import UnreadableSample, read_instances_png

SIZE = (160, 120)


def discs(count: int, radius: int = 18, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Discs on black, in a grid, each in a colour of its own."""
    image = Image.new(mode, size)
    draw = ImageDraw.Draw(image)
    columns = int(np.ceil(np.sqrt(count)))
    for number in range(count):
        x, y = (
            (0.5 + place) * side / columns
            for place, side in zip((number % columns, number // columns), size, strict=True)
        )
        colour = (
            255 - number * 254 // count if mode == "L" else (255 - (number * 37) % 251, (number * 91) % 256, number)
        )
        (draw.ellipse if radius else draw.rectangle)((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("count", "radius"), [(1, 18), (3, 18), (40, 6), (200, 3), (200, 1), (200, 0)])
def test_many_and_tiny_objects_are_read(save, mode, count, radius):
    assert len(read_instances_png(save("a.png", discs(count, radius, mode)))) == count


def test_more_objects_than_a_byte_counts_are_read(save):
    codes = np.zeros((120, 160), np.uint16)
    for number in range(1, 301):
        row, column = divmod(number - 1, 20)
        codes[row * 8 : row * 8 + 6, column * 8 : column * 8 + 6] = number
    masks = read_instances_png(save("a.png", codes))
    assert len(masks) == 300
    assert (masks.sum((1, 2)) == 36).all()


def test_slivers_that_touch_a_larger_object_are_read(save):
    codes = np.zeros((40, 60, 3), np.uint8)
    codes[5:30, 5:50] = (200, 0, 0)
    codes[30, 5:20], codes[30, 25:40], codes[30:32, 44:46] = (0, 200, 0), (0, 0, 200), (0, 90, 200)
    assert len(read_instances_png(save("a.png", codes))) == 4


def spoiled(kind: str, image: Image.Image, save) -> Image.Image:
    width, height = image.size
    match kind:
        case "jpeg in png":
            return Image.open(save("b.jpg", image, quality=95)).convert(image.mode)
        case "webp in png":
            return Image.open(save("b.webp", image, quality=80)).convert(image.mode)
        case "larger":
            return image.resize((width * 3 // 2, height * 3 // 2), Image.Resampling.BILINEAR)
        case "smaller":
            return image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)
        case "smoothed":
            return image.resize((width * 4, height * 4), 0).resize((width - 3, height - 2), Image.Resampling.LANCZOS)
        case _:
            return image


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("jpeg", "a.jpg"), ("jpeg", "a.jpeg"), ("webp", "a.webp"), ("jpeg in tiff", "a.tif")]
    + [(kind, "a.png") for kind in ("jpeg in png", "webp in png", "larger", "smaller", "smoothed")],
)
def test_more_colours_than_objects_are_refused_with_their_number(save, kind, name, count, mode):
    image = spoiled(kind, discs(count, mode=mode), save)
    path = save(name, image, **({"compression": "jpeg"} if kind == "jpeg in tiff" else {}))
    shown = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    colours = len(np.unique(shown[shown.any(1)], axis=0))
    assert colours > count
    with pytest.raises(UnreadableSample, match=rf"{re.escape(name)}: {colours} colours.*nearest neighbour") as error:
        read_instances_png(path)
    assert "\n" not in str(error.value)


def test_a_black_jpeg_is_an_empty_ground_truth(save):
    assert len(read_instances_png(save("a.jpg", np.zeros((40, 60, 3), np.uint8)))) == 0


def test_instances_that_no_memory_holds_are_refused(save, monkeypatch):
    monkeypatch.setattr("lightning_sal.datasets.colours.MOST_PIXELS", 10_000)
    with pytest.raises(UnreadableSample, match="3 colours on 160 x 120 pixels are too many"):
        read_instances_png(save("a.png", discs(3)))
