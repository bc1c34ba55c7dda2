"""How many kernels a pass over responses is, and that it waits for nothing."""

from __future__ import annotations

from collections import Counter

import torch

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.tiny.scenes import scene_group
from tests.device import pretend
from tests.device.counting import counting


def test_a_pass_of_scoring_waits_for_nothing_and_its_kernels_have_a_budget():
    """A layer: 2 norms, each one kernel on a GPU and six here; 7 products, each with 2 for its adapters, a scale and a sum;
    6 of rotations; 2 of the gate; the sums of both branches. And one more norm in the last layer, which reads its end."""
    policy = FastPolicy(PolicyConfig("tiny-early", lora=LoRA(rank=4))).to(pretend.device())
    prompts = policy.encode([scene_group(0, "sod", number) for number in range(2)])
    tokens, mask = policy.encode_responses(["<think>a red circle</think>"] * 4)
    with counting() as counts, torch.no_grad():
        policy.score_tokens(prompts, tokens, mask, lengths=[mask.shape[1]] * 4)
    assert not counts.waits, str(counts)
    assert not counts.copies, str(counts)
    kernels = Counter()
    for place, count in counts.kernels.items():
        if place.file == "policy/layers.py":
            kernels[place.operation] += count
    layers = len(policy.backbone.decoder_layers)
    by_norms = 5 * kernels["rsqrt"]
    assert kernels.total() - by_norms <= layers * (2 + 7 * 5 + 6 + 2 + 2) + 1, str(kernels)
