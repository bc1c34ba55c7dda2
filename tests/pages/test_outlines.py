"""Masks on photographs: objects keep their colours, all around is darker, outlines have the colours of the words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_sal.pages.outlines import DIM, LINE, colour, outline, overlay

PHOTOGRAPH = torch.randint(30, 256, (240, 320, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def box(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    mask = torch.zeros(240, 320, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_an_object_keeps_its_colours_to_the_bit_and_its_surroundings_are_darker() -> None:
    masks = torch.stack([box(40, 40, 120, 120), box(150, 200, 220, 300)])
    drawn = overlay(PHOTOGRAPH, masks)
    for mask in masks:  # both: the union stays bright
        assert torch.equal(drawn[mask], PHOTOGRAPH[mask])
    far = torch.ones_like(masks[0])
    for top, left, bottom, right in ((30, 30, 130, 130), (140, 190, 230, 310)):
        far &= ~box(top, left, bottom, right)
    assert (drawn[far] < PHOTOGRAPH[far]).all()
    assert torch.equal(drawn[far], (DIM * PHOTOGRAPH[far].float()).to(torch.uint8))


def test_around_each_object_runs_its_own_colour_between_a_dark_and_a_light_line() -> None:
    masks = torch.stack([box(40, 40, 120, 120), box(150, 200, 220, 300)])
    drawn = overlay(PHOTOGRAPH, masks).numpy()
    for index, (row, column) in enumerate(((80, 120), (180, 300))):
        outwards = [tuple(map(int, pixel)) for pixel in drawn[row, column : column + 8]]
        assert outwards.count(colour(index)) >= 2
        first, last = outwards.index(colour(index)), len(outwards) - outwards[::-1].index(colour(index))
        assert max(outwards[first - 1]) < 40
        assert min(outwards[last]) > 215


@pytest.mark.parametrize("side", [64, 224, 2000])
def test_an_outline_is_seen_at_the_size_of_a_thumbnail(side: int) -> None:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    width = int((outline(mask)[3 * side // 8] == LINE).sum()) / 2
    assert 200 * width / side >= 1.5  # pixels, shown at 200


def test_the_border_of_a_picture_is_no_outline_and_nothing_found_changes_nothing() -> None:
    everywhere = torch.ones(1, 240, 320, dtype=torch.bool)
    for masks in (everywhere, ~everywhere, everywhere[:0]):
        kept = PHOTOGRAPH.clone()
        assert torch.equal(overlay(kept, masks), PHOTOGRAPH)
        assert torch.equal(kept, PHOTOGRAPH)


def test_colours_of_a_dozen_masks_differ() -> None:
    colours = np.array([colour(i) for i in range(12)], float)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(12)
    assert apart.min() > 50
