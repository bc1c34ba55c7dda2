"""What the vision tower is shown, against what the image processor makes of the same images by itself."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2VLImageProcessor

from lightning_sal.policy.images import patches, resized

SIZES = [(480, 640), (33, 1000), (840, 840), (20, 20), (505, 379)]


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in SIZES]


def test_pixels_are_those_of_the_processor(images):
    for resample in (2, 3):
        processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=400 * 400, resample=resample)
        expected = processor([image.permute(2, 0, 1) for image in images], return_tensors="pt")
        pixels, grids = patches(images, processor, torch.device("cpu"))
        assert torch.equal(pixels, expected["pixel_values"])
        assert torch.equal(grids, expected["image_grid_thw"])


def test_an_image_of_the_size_that_is_shown_stays_as_it_is():
    image = torch.randint(0, 256, (56, 84, 3), dtype=torch.uint8)
    assert resized(image, Qwen2VLImageProcessor()) is image


def test_another_kernel_is_refused(images):
    with pytest.raises(ValueError, match="resample 0: set it to 3"):
        resized(images[0], Qwen2VLImageProcessor(resample=0))
