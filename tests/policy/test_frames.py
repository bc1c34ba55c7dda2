"""What a policy is shown, and in which units it states places: against the sizes that its processor gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lightning_sal.frames import Square
from lightning_sal.inference.responses import read_responses
from lightning_sal.policy.backbone import shown_size
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.frames import Shown, frame_of, squashed
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import SOD

SAID = '<think><look>x</look></think><answer>[{{"bbox_2d": [{}, {}, {}, {}], "point_2d": [{}, {}]}}]</answer>'


def image_processor(**sizes):
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(**sizes)


def group_of(height, width, task="perception", **fields):
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    return ImageGroup("sample-1", task, (image,), question="the cup", **fields)


@pytest.mark.parametrize("size", [(480, 640), (33, 1000), (840, 840), (2000, 3000), (20, 20), (505, 379)])
def test_the_size_that_is_shown_is_that_of_the_patches(size):
    processor = image_processor(min_pixels=56 * 56, max_pixels=1280 * 28 * 28)
    (grid,) = processor(torch.zeros(3, *size, dtype=torch.uint8), return_tensors="pt")["image_grid_thw"]
    assert shown_size(processor, size) == tuple((grid[1:] * processor.patch_size).tolist())


def test_each_kind_of_model_has_its_units():
    processor = image_processor(min_pixels=56 * 56, max_pixels=1280 * 28 * 28)
    assert frame_of("qwen2_5_vl", processor, None).extent((300, 401)) == (308, 392)
    assert frame_of("qwen2_5_vl", processor, 840).extent((300, 401)) == (840, 840)
    assert frame_of("qwen3_vl", processor, None) == frame_of("qwen3_vl", processor, 840) == Square(1000)


def test_squashing_is_bilinear_and_leaves_what_fits():
    image = torch.randint(0, 256, (30, 50, 3), dtype=torch.uint8)
    assert squashed(image, None) is image
    assert squashed(image[:30, :30], 30).data_ptr() == image.data_ptr()
    found = squashed(image, 20)
    wanted = F.interpolate(image.permute(2, 0, 1)[None].float(), (20, 20), mode="bilinear", antialias=True)[0]
    assert found.dtype == torch.uint8
    assert (found.permute(2, 0, 1) - wanted).abs().max() <= 0.5 + 1e-4


@pytest.fixture(scope="module")
def policy():
    return FastPolicy(PolicyConfig(model="tiny-scratch", square=56))


def test_a_square_is_what_the_policy_is_shown(policy):
    group = group_of(40, 90, "sod")
    (shown,) = policy.shown(group)
    assert shown.shape == (56, 56, 3)
    torch.testing.assert_close(
        policy.encode([group]).visual[0], policy.encode([replace(group, images=(shown,))]).visual[0]
    )


def test_a_rollout_carries_the_units_of_its_policy(policy):
    """The small policy is shown every square in 112 x 112 pixels."""
    assert isinstance(policy.frame, Shown)
    group = group_of(56, 224)
    texts = (SAID.format(56, 28, 112, 112, 56, 56),)
    tokens, mask = policy.encode_responses(texts)
    rollout = policy.rollout(texts, tokens, mask, torch.zeros(mask.shape), torch.tensor([False]))
    (response,) = read_responses([group], rollout)
    assert response.answer.boxes == ((112, 14, 224, 56),)
    assert response.answer.points == ((112, 28),)


def test_annotated_responses_are_taught_in_the_units_of_the_policy(policy):
    group = group_of(56, 224, response=SAID.format(112, 14, 224, 56, 112, 28))
    assert policy.annotated([group]) == [SAID.format(56, 28, 112, 112, 56, 56)]
    other = group_of(56, 224, "sod", response=SOD.response("so", ["a cup"]))
    assert policy.annotated([other]) == [other.response]


def test_look_is_asked_for_and_read_as_the_policy_says():
    policy = FastPolicy(PolicyConfig(model="tiny-scratch", look="focus"))
    group = group_of(112, 112, "sod")
    assert "<focus>" in policy.messages(group)[-1].text
    texts = (SOD.response("a cup", ["a cup"]), SOD.response("<focus>a cup</focus>", ["a cup"]))
    tokens, mask = policy.encode_responses(texts)
    rollout = policy.rollout(texts, tokens, mask, torch.zeros(mask.shape), torch.zeros(2, dtype=torch.bool))
    assert [each.answer.format_reward for each in read_responses([group, group], rollout)] == [0.5, 1]


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"policy.square 0 must be at least 1 pixel"):
        PolicyConfig(square=0)
    with pytest.raises(ValueError, match=r"policy.look '<look>' is no name of a tag"):
        PolicyConfig(look="<look>")


def test_a_stated_frame_goes_before_that_of_the_family():
    assert FastPolicy(PolicyConfig("tiny-scratch", frame=500)).frame == Square(500)
    with pytest.raises(ValueError, match=r"policy\.frame 0 must be at least 1"):
        PolicyConfig(frame=0)
