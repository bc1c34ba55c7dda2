"""Prompts are as long as the model makes them, though none is loaded."""

import pytest
import torch

from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.make import make_policy
from lightning_sal.policy.prompt_check import PromptCheck
from lightning_sal.samples import ImageGroup
from lightning_sal.tiny.scenes import scene_group
from tests.families import FAMILIES


@pytest.mark.parametrize("max_pixels", [None, 600])
@pytest.mark.parametrize("family", ["internvl", "llava_onevision", "smolvlm"])
def test_lengths_are_those_of_the_models_own_prompts(family, max_pixels, tmp_path, monkeypatch):
    config = PolicyConfig(str(FAMILIES[family](tmp_path / family)), max_pixels=max_pixels)
    wide = ImageGroup("wide", "sod", (torch.zeros(40, 160, 3, dtype=torch.uint8),))
    groups = [scene_group(1, "sod", 0), wide, scene_group(1, "cosod", 0)]
    expected = [make_policy(config).encode([group]).lengths[0] for group in groups]

    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", None)  # no weights are needed
    check = PromptCheck(config)
    assert [check.length(group) for group in groups] == expected
    assert [list(check.faults("a", group)) for group in groups] == [[]] * 3
    assert f"{min(expected):,} to {max(expected):,} tokens" in next(iter(check.summary()))


def test_what_a_processor_does_not_take_is_a_fault():
    check = PromptCheck(PolicyConfig("tiny"))
    group = ImageGroup("odd", "vqa", scene_group(1, "sod", 0).images, question="What is <|image_pad|>?")
    [fault] = check.faults("a", group)
    assert fault.startswith("odd: ")
    assert list(check.summary()) == []
