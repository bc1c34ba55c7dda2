"""Encoding prompts asks the device nothing, whatever the number of images, their sizes and the blocks of the tower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_sal.policy import selfcheck
from lightning_sal.policy.backbone import MODEL_TYPES, Backbone
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.images import patches
from lightning_sal.samples import ImageGroup
from tests.device import pretend
from tests.device.counting import counting

CONFIG = PolicyConfig("tiny", min_pixels=3136, max_pixels=60_000)  # with which images keep sizes of their own
SIZES = [(112, 112), (333, 97), (64, 260), (112, 112), (300, 90)]


def groups(sizes):
    """One prompt an image."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in sizes]
    return [ImageGroup(f"sample-{number}", "sod", (image,)) for number, image in enumerate(images)]


@torch.no_grad()
@pytest.mark.parametrize("square", [None, 84])
def test_a_prompt_is_encoded_without_a_wait_or_a_copy(square):
    policy = FastPolicy(replace(CONFIG, square=square)).to(pretend.device())
    policy.encode(groups(SIZES[:1]))  # the image processor's mean and deviation go to the device once in a process
    for count in (1, len(SIZES)):
        given = groups(SIZES[:count])
        with counting() as counts:
            policy.encode(given)
        assert not counts.waits, f"{count} images:\n{counts}"
        assert not counts.copies, f"{count} images:\n{counts}"


@torch.no_grad()
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_no_block_of_the_tower_waits(kind):
    backbone = Backbone(selfcheck.small_model(kind))
    backbone.model.to(pretend.device())
    grids = torch.tensor([[1, 14, 10], [1, 6, 8], [1, 4, 4]])
    pixels = torch.randn(int(grids.prod(1).sum()), 3 * 2 * 2 * 2).to(pretend.device())
    with counting() as counts:
        backbone.features(pixels, grids)
    assert not counts.waits, counts
    assert not counts.copies, counts


def test_pixels_are_those_of_the_cpu_to_the_bit():
    processor = FastPolicy(CONFIG).processor.image_processor
    images = [group.images[0] for group in groups(SIZES)]
    expected = processor([image.permute(2, 0, 1) for image in images], return_tensors="pt")
    pixels, grids = patches(images, processor, pretend.device())
    assert pixels.device == pretend.device()
    assert torch.equal(pixels.cpu(), expected["pixel_values"])
    assert torch.equal(grids, expected["image_grid_thw"])
