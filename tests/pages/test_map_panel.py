"""Panels of maps: a cell a label and an image, whatever their number and words."""

import numpy as np
import pytest
import torch

from lightning_sal.pages.map_panel import map_panel

GREY = torch.full((40, 60, 3), 100, dtype=torch.uint8)


def test_each_label_has_a_cell_for_each_image():
    values = torch.full((2, 2), -1.0)
    for labels, images in ((1, 1), (1, 3), (3, 2), (9, 1)):
        drawn = np.asarray(map_panel([GREY] * images, [[values] * images] * labels, ["x"] * labels, "t"))
        assert (drawn == 100).all(-1).sum() == labels * images * 176 * 117  # 60 x 40 fitted into 176


def test_without_maps_there_is_the_title_alone():
    assert map_panel((), (), (), "title").height < 60
    assert map_panel([GREY], (), (), "title").size == map_panel((), (), (), "title").size


@pytest.mark.parametrize("words", ["", "\n", "W" * 3000, "word " * 900, "a\x00\t\u65e5\u672c \ud800 b"])
def test_any_words_are_drawn_and_the_panel_stays_of_a_size(words):
    drawn = map_panel([GREY], [[torch.zeros(2, 2)]], [words], words)
    assert drawn.height < 700
