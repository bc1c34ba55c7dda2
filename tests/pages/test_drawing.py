"""Drawing: what a panel and a gallery hold."""

import numpy as np
import pytest
import torch

from lightning_sal.pages.drawing import PAPER, gallery, panel
from lightning_sal.pages.outlines import colour

GREY = torch.full((40, 60, 3), 100, dtype=torch.uint8)


def square(top=10, left=20, side=20, shape=(40, 60)):
    mask = torch.zeros(1, *shape, dtype=torch.bool)
    mask[0, top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize(("side", "factor"), [(112, 2), (64, 3), (200, 1)])
def test_a_panel_scales_small_images_by_whole_factors(side, factor):
    image = torch.randint(0, 200, (side, side, 3), dtype=torch.uint8)
    masks = torch.zeros(0, side, side, dtype=torch.bool)
    drawn = np.array(panel([image], None, [masks], ""))
    wanted = image.numpy().repeat(factor, 0).repeat(factor, 1)
    height, width = wanted.shape[:2]
    at = [
        (y, 16) for y in range(drawn.shape[0] - height + 1) if (drawn[y : y + height, 16 : 16 + width] == wanted).all()
    ]
    assert len(at) == 1


def test_a_panel_has_a_row_an_image_of_any_size_and_a_column_less_without_truth():
    images = [torch.zeros(h, w, 3, dtype=torch.uint8) for h, w in ((50, 30), (900, 1200))]
    masks = [torch.ones(1, *image.shape[:2], dtype=torch.bool) for image in images]
    known = panel(images, masks, masks, "words")
    assert panel(images, None, masks, "words").width < known.width
    assert known.height > panel(images[:1], masks[:1], masks[:1], "words").height
    black = (np.array(known)[:, 16:240] == 0).all(-1).sum()
    assert black == 200 * 120 + 224 * 168  # 30 x 50 four times as large, 1200 x 900 fitted into 224


@pytest.mark.parametrize(
    "text", ["", "\n\n", "<", "W" * 3000, "<rg>" * 400, "a\x00\t\u65e5\u672c \ud800 b", "</answer><rg>x"]
)
def test_a_panel_takes_any_text_and_stays_of_a_size(text):
    drawn = panel([GREY], None, [square()], text, title=text)
    assert drawn.width < 1000
    assert drawn.height < 1300


def test_expressions_lie_on_the_colour_of_their_mask():
    masks = torch.cat([square(), square(left=0)])
    text = "<think>the <ins>c</ins></think><answer><ins>a</ins><ins>b</ins></answer>"
    pixels = {tuple(pixel) for pixel in np.array(panel([GREY], None, [masks], text))[:, 500:].reshape(-1, 3)}
    shades = [tuple((channel + 510) // 3 for channel in colour(i)) for i in range(3)]
    assert shades[0] in pixels
    assert shades[1] in pixels
    assert shades[2] not in pixels


def test_an_expression_without_a_mask_is_told():
    masks = torch.cat([square(), square()[:1] & False])
    text = "<think></think><answer><ins>a</ins><ins>b</ins></answer>"
    told, silent = (np.array(panel([GREY], None, [found], text)) for found in (masks, torch.cat([square(), square()])))
    assert (told != PAPER).any(-1)[:, 500:].sum() > (silent != PAPER).any(-1)[:, 500:].sum()


def test_a_gallery_holds_all_panels():
    panels = [panel([GREY], None, [square()], text) for text in ("one", "two " * 200)]
    drawn = gallery(panels, "title")
    assert drawn.width == max(part.width for part in panels)
    assert (np.array(drawn)[-panels[1].height + 1 :] == np.array(panels[1])[1:]).all()
    assert gallery([]).getpixel((0, 0)) == PAPER


def test_without_images_a_panel_is_its_words():
    empty, filled = (panel((), None, (), text, title="question") for text in ("", "an answer of a few words"))
    assert empty.size == filled.size
    assert empty.width < panel([GREY], None, [square()], "").width
    assert np.asarray(filled).tobytes() != np.asarray(empty).tobytes()
    assert panel((), None, (), "word " * 400).height > 2 * filled.height
