"""Segmenting asks the device nothing, whatever the number of images and prompts; masks stay where they are made."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.samples import VisualPrompt
from lightning_sal.segmenters import SAM3
from lightning_sal.segmenters.tiny import EmbeddedSAM2Prompt, embedded_evf_sam2, embedded_segmenter
from tests.device import pretend
from tests.device.counting import counting
from tests.segmenters.sam3_parts import tiny_model, tiny_processor

SIZES = [(112, 112), (97, 130), (112, 112), (50, 60)]
WORDS = [["the red circle"], ["[semantic] square", "a blue square"], [], ["the red circle", "the red circle"]]
BOX, POINT = VisualPrompt(box=(3.0, 4.0, 40.0, 30.0)), VisualPrompt(points=((20.0, 20.0),), labels=(1,))
VISUAL = [[BOX], [POINT, BOX], [], [POINT, POINT]]


def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in SIZES]


BOTH = [[*words, *visual] for words, visual in zip(WORDS, VISUAL, strict=True)]


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(
    ("make", "prompts"), [(embedded_evf_sam2, WORDS), (EmbeddedSAM2Prompt, VISUAL), (embedded_segmenter, BOTH)]
)
def test_masks_without_a_wait_or_a_copy(make, prompts, several):
    """With the best of several masks, and with the single one where it is stable."""
    segmenter, given = make(), images()
    for part in segmenter.modules():
        for setting in ("multimask", "dynamic_multimask_via_stability"):
            if hasattr(part, setting):
                setattr(part, setting, several if setting == "multimask" else not several)
    expected = segmenter.segment(given, prompts)
    segmenter.to(pretend.device())
    with counting() as counts:
        found = segmenter.segment(given, prompts)
    assert not counts.waits, counts
    assert not counts.copies, counts
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.device == pretend.device()
        assert (ours.cpu() != theirs).float().mean().nan_to_num() < 1e-3  # sums of another order, at the edge


@torch.no_grad()
@pytest.mark.parametrize("region", ["semantic", "instances"])
def test_sam3_waits_for_its_model_alone(region):
    """Transformers' own lines ask the device a few times in a pass; ours once, for unions of instances alone."""
    model, processor = tiny_model(), tiny_processor()
    segmenter = SAM3(model, processor, region, presence_threshold=0.4, score_threshold=0.3)
    expected = segmenter.segment_with_presence(images(), WORDS)
    segmenter.to(pretend.device())
    pixels = torch.zeros(3, 3, 56, 56, device=pretend.device())
    text = processor(text=["circle"] * 3, return_tensors="pt").to(pretend.device())
    with counting() as of_model:
        model(pixel_values=pixels, **text)
    given = images()
    with counting() as counts:
        found = segmenter.segment_with_presence(given, WORDS)
    assert counts.waits.total() == of_model.waits.total() + (region == "instances")
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.masks.device == ours.presence.device == pretend.device()
        torch.testing.assert_close(ours.presence.cpu(), theirs.presence, atol=1e-5, rtol=0)
        assert (
            ours.masks.cpu() != theirs.masks
        ).float().mean().nan_to_num() < 1e-3  # sums of another order, at the edge
