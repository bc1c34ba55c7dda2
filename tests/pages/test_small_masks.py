"""The small masks that results keep, and that pages show later."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from lightning_sal.pages.outlines import colour
from lightning_sal.pages.pictures import SMALL, small_masks
from lightning_sal.pages.thumbnails import kept_mask
from lightning_sal.samples import ImageGroup

IMAGE = torch.zeros(300, 480, 3, dtype=torch.uint8)


def box(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    mask = torch.zeros(300, 480, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def shown(text: str) -> Image.Image:
    address = kept_mask(text)
    assert address is not None
    kind, _, content = address.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")


def test_a_region_is_white_and_each_instance_has_the_colour_of_its_outline() -> None:
    region, both = box(100, 200, 200, 400), torch.stack([box(0, 0, 100, 100), box(200, 300, 300, 480)])
    group = ImageGroup("k", "sod", (IMAGE,), masks=(region[None],))
    kept = {name: shown(text) for name, text in small_masks(group, [both], 0).items()}
    assert kept["truth"].size == (SMALL, SMALL * 300 // 480)
    for name, place, paint in (
        ("truth", (150, 75), (255, 255, 255)),
        ("truth", (20, 20), (0, 0, 0)),
        ("prediction", (20, 20), colour(0)),
        ("prediction", (200, 125), colour(1)),
        ("prediction", (120, 75), (0, 0, 0)),
    ):
        assert kept[name].getpixel(place) == paint, (name, place)


def test_nothing_found_is_black_and_an_unknown_truth_is_empty() -> None:
    group = ImageGroup("k", "sod", (IMAGE,))
    kept = small_masks(group, [torch.zeros(0, 300, 480, dtype=torch.bool)], 0)
    assert kept["truth"] == ""
    assert shown(kept["prediction"]).getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("text", ["", "x", "PHNjcmlwdD4=", '"><script>'])
def test_what_is_no_picture_is_not_shown(text) -> None:
    assert kept_mask(text) is None
