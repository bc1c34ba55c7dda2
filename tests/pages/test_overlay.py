"""Maps over photographs: what the colours say, and that they say it at the right place."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from lightning_sal.pages.overlay import Scale, colours, layer, legend, overlay, tint

GREY = torch.full((40, 60, 3), 120, dtype=torch.uint8)


def spot(row=1, column=3, value=0.5, shape=(4, 6)):
    values = torch.zeros(shape)
    values[row, column] = value
    return values


def luminance(rgb):
    """Relative luminance of sRGB in [0, 255], as WCAG 2 defines it."""
    linear = np.asarray(rgb, float) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_the_colours_are_those_of_cividis_and_grow_lighter_with_the_value():
    share = torch.linspace(0, 1, 256)
    ours = colours(share)
    theirs = 255 * colormaps["cividis"](share.numpy())[:, :3]
    assert (
        np.abs(ours[:, :3].numpy() - theirs).max() < 12
    )  # 17 colours for 256; the largest gap is in the darkest blues
    assert (np.diff(luminance(ours[:, :3])) > 0).all()
    assert (ours[:, 3].diff() >= 0).all()
    assert ours[0, 3] == 0


def test_without_mass_the_picture_stays_as_it_is():
    for values in (torch.zeros(4, 6), -torch.rand(4, 6)):
        assert torch.equal(tint(GREY, values, Scale.of([values])), GREY)
        assert (np.asarray(overlay(GREY, values).crop((0, 0, 60, 40))) == 120).all()


def test_the_peak_lies_where_the_map_has_it():
    for row, column in ((0, 0), (1, 3), (3, 5)):
        drawn = np.asarray(overlay(GREY, spot(row, column)))[:40, :60].astype(int)
        yellow = drawn[..., 0] - drawn[..., 2]
        y, x = np.unravel_index(yellow.argmax(), yellow.shape)
        assert (y // 10, x // 10) == (row, column)
        far = np.asarray(
            [[abs(i - (10 * row + 5)) > 15 or abs(j - (10 * column + 5)) > 15 for j in range(60)] for i in range(40)]
        )
        assert (drawn[far] == 120).all()


def test_one_scale_makes_maps_of_a_response_comparable():
    strong, weak = spot(value=0.4), spot(value=0.1)
    scale = Scale.of([strong, weak])
    assert scale.top == pytest.approx(0.4)
    half = tint(GREY, weak, Scale(0.2))
    assert torch.equal(half, tint(GREY, spot(value=0.2), Scale(0.4)))
    assert torch.equal(tint(GREY, weak, Scale.of([weak])), tint(GREY, strong, Scale.of([strong])))
    assert not torch.equal(tint(GREY, weak, scale), tint(GREY, strong, scale))
    assert str(scale) == "0.4 logit"


def test_a_layer_is_a_pixel_a_cell_and_has_the_colours_of_the_overlay():
    values = torch.rand(5, 7)
    scale = Scale.of([values])
    drawn = np.asarray(layer(values, scale).convert("RGBA")).astype(float)
    assert drawn.shape == (5, 7, 4)
    wanted = colours(scale.share(values)).numpy()
    assert np.abs(drawn[..., 3] / 255 - wanted[..., 3]).max() < 0.02
    assert np.abs(drawn[..., :3] - wanted[..., :3]).max() < 5


@pytest.mark.parametrize(("width", "wide"), [(24, 80), (80, 80), (400, 400), (4000, 4000)])
def test_a_legend_can_be_read_at_any_width(width, wide):
    drawn = legend(width, Scale(0.0314159, "the largest value of a word of this response"))
    assert drawn.width == wide
    grey = np.asarray(drawn.convert("L"))
    written = grey[max(8, wide // 36) + 2 :]
    assert (written < 128).any()
    assert (written[:, -1] > 200).all(), "no word is cut off"
    bar = np.asarray(drawn)[[0, max(4, max(10, wide // 36) // 2) * 2 - 1], 2].astype(int)
    assert bar[0].max() < 40, "over black"
    assert bar[1].min() > 215, "over white"


def test_an_image_narrower_than_its_legend_stands_at_the_left():
    image = torch.full((10, 30, 3), 7, dtype=torch.uint8)
    drawn = np.asarray(overlay(image, torch.zeros(2, 2)))
    assert drawn.shape[1] == 80
    assert (drawn[:10, :30] == 7).all()
    assert (drawn[:10, 30:] == 255).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        overlay(GREY, spot(value=value))
    with pytest.raises(ValueError, match="not finite"):
        overlay(GREY, spot(value=value), Scale(1.0))
