import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lightning_sal.datasets.images import (
    UnreadableSample,
    read_image,
    read_instances_png,
    read_mask,
    read_orientation,
)

TRUTH = np.zeros((9, 12), dtype=bool)
TRUTH[2:5, 3:11] = True
WHITE = TRUTH.astype(np.uint8) * 255


def palette_image(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def with_alpha(grey: np.ndarray, alpha: np.ndarray, mode: str = "RGBA") -> Image.Image:
    image = Image.fromarray(grey).convert(mode[:-1])
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    return image


OPAQUE = np.full_like(WHITE, 255)
MASKS = {
    "1": Image.fromarray(WHITE).convert("1"),
    "L": WHITE,
    "L, multi-valued, cut at half": np.where(TRUTH, 129, 128).astype(np.uint8),
    "L, labels 0 and 1": TRUTH.astype(np.uint8),
    "P, black and white": palette_image(TRUTH, [(0, 0, 0), (255, 255, 255)]),
    "P, white first": palette_image(~TRUTH, [(255, 255, 255), (0, 0, 0)]),
    "P, dark label colour": palette_image(TRUTH, [(0, 0, 0), (64, 0, 0)]),
    "P, grey ramp with index 1": palette_image(TRUTH, [(i, i, i) for i in range(256)]),
    "RGB": Image.fromarray(WHITE).convert("RGB"),
    "RGB, red on black": np.stack([WHITE, 0 * WHITE, 0 * WHITE], axis=2),
    "RGBA, opaque": with_alpha(WHITE, OPAQUE),
    "RGBA, white, mask in alpha": with_alpha(OPAQUE, WHITE),
    "RGBA, black, mask in alpha": with_alpha(0 * WHITE, WHITE),
    "LA": with_alpha(WHITE, OPAQUE, "LA"),
    "I;16": WHITE.astype(np.uint16) * 257,
    "I;16, cut at half": np.where(TRUTH, 32897, 32896).astype(np.uint16),
    "I;16, 8-bit values": WHITE.astype(np.uint16),
    "I;16, labels 0 and 1": TRUTH.astype(np.uint16),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_of_any_mode_is_true_inside_the_object(save, name):
    mask = read_mask(save("mask.png", MASKS[name]), (9, 12))
    assert mask.dtype == torch.bool
    assert np.array_equal(mask.numpy(), TRUTH)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_an_all_black_mask_of_any_mode_is_empty(save, mode):
    black = np.zeros((9, 12), np.uint16) if mode == "I;16" else Image.fromarray(0 * WHITE).convert(mode)
    assert not read_mask(save("mask.png", black), (9, 12)).any()


def test_jpeg_and_bmp_masks(save):
    big = np.kron(WHITE, np.ones((8, 8), np.uint8))
    assert np.array_equal(read_mask(save("a.jpg", big, quality=95)).numpy(), big > 127)
    assert np.array_equal(read_mask(save("a.bmp", big)).numpy(), big > 127)


def test_a_mask_of_another_size_is_brought_to_the_photograph_by_nearest_neighbour(save):
    doubled = np.kron(WHITE, np.ones((2, 2), np.uint8))
    assert np.array_equal(read_mask(save("big.png", doubled), (9, 12)).numpy(), TRUTH)
    assert np.array_equal(read_mask(save("small.png", WHITE), (18, 24)).numpy(), doubled > 127)


def test_a_mask_of_another_aspect_ratio_is_refused(save):
    path = save("mask.png", WHITE)
    with pytest.raises(UnreadableSample, match=r"mask\.png: 12 x 9 pixels do not fit a photograph of 12 x 12"):
        read_mask(path, (12, 12))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_exif_says(save, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save("a.png", None, exif=exif)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(path).numpy(), shown)
    assert read_orientation(path) == orientation


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_before_the_turn_is_turned_along(save, orientation, scale):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(save("turn.png", WHITE, exif=exif)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image)) > 127  # what a viewer shows of the raw mask
    raw = save("raw.png", np.kron(WHITE, np.ones((scale, scale), np.uint8)))
    upright = save("upright.png", shown.astype(np.uint8) * 255)
    for path in (raw, upright):
        assert np.array_equal(read_mask(path, (12, 9), orientation).numpy(), shown)


def test_photographs_of_any_mode_become_rgb(save):
    grey = np.arange(108, dtype=np.uint8).reshape(9, 12)
    three = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(read_image(save("l.png", grey)).numpy(), three)
    assert np.array_equal(read_image(save("16.png", grey.astype(np.uint16) * 257 + 1)).numpy(), three)
    assert np.array_equal(
        read_image(save("p.png", palette_image(grey, [(i, i, i) for i in range(256)]))).numpy(), three
    )
    one = read_image(save("1.png", Image.fromarray(WHITE).convert("1"))).numpy()
    assert np.array_equal(one, np.repeat(WHITE[:, :, None], 3, axis=2))
    red = Image.new("CMYK", (12, 9), (0, 255, 255, 0))
    assert read_image(save("cmyk.tif", red))[0, 0].tolist() == [255, 0, 0]


def test_transparency_is_laid_over_white(save):
    image = read_image(save("a.png", with_alpha(0 * WHITE, WHITE))).numpy()
    assert (image[TRUTH] == 0).all()
    assert (image[~TRUTH] == 255).all()


def test_instances_are_the_colours(save):
    codes = np.zeros((9, 12, 3), np.uint8)
    codes[0:3, 0:4], codes[4:6, 5:9], codes[7:9, 0:2] = (200, 0, 0), (0, 0, 90), (0, 90, 0)
    masks = read_instances_png(save("a.png", codes), (9, 12)).numpy()
    assert masks.shape == (3, 9, 12)
    assert sorted(masks.sum((1, 2))) == [4, 8, 12]
    assert np.array_equal(masks.any(0), codes.any(2))
    assert (masks.sum(0) <= 1).all()


def test_instances_of_a_palette_file_are_its_indices(save):
    indices = np.zeros((9, 12), np.uint8)
    indices[1:3, 1:3], indices[5:8, 2:9] = 1, 2
    for colours in ([(0, 0, 0), (128, 0, 0), (0, 128, 0)], [(0, 0, 0), (255, 255, 255), (255, 255, 255)]):
        masks = read_instances_png(save("a.png", palette_image(indices, colours)), (9, 12)).numpy()
        assert np.array_equal(masks, np.stack([indices == 1, indices == 2]))


def test_a_black_instance_file_is_an_empty_ground_truth(save):
    masks = read_instances_png(save("a.png", np.zeros((9, 12, 3), np.uint8)), (18, 24))
    assert masks.shape == (0, 18, 24)


def test_a_photograph_in_place_of_an_instance_file_is_refused(save):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    with pytest.raises(UnreadableSample, match="colours"):
        read_instances_png(save("a.png", noise))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
def test_whatever_is_cut_off_is_refused(save, suffix):
    path = save(f"a.{suffix}", np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8))
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 7):
        path.write_bytes(content[:length])
        with pytest.raises(UnreadableSample) as error:
            read_image(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_missing_alien_and_giant_files_are_refused_in_one_line(save, tmp_path: Path, monkeypatch):
    with pytest.raises(UnreadableSample, match="no such file"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text(json.dumps({"not": "an image"}))
    with pytest.raises(UnreadableSample, match="not an image"):
        read_image(tmp_path / "text.jpg")
    path = save("giant.png", WHITE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableSample, match=r"giant\.png: .*exceeds limit"):
        read_image(path)
