"""Adapters by peft: under autocast their inputs are not cast to float32 and back, and nothing else changes for it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy

GROUPS = [SceneGroups(3, {"sod": 1, "cosod": 1}, size=2)[i] for i in range(2)]


class Casts(TorchDispatchMode):
    """Counts casts from half precision to float32."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            self.number += (args[0].dtype, kwargs.get("dtype")) == (torch.bfloat16, torch.float32)
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def policy():
    policy = FastPolicy(PolicyConfig("tiny-scratch", dtype="bfloat16", lora=LoRA(rank=4)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return policy


def adapted_layers(policy):
    return [module for module in policy.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")]


def scores_and_gradients(policy, *, autocast):
    tokens, mask = policy.encode_responses([group.response for group in GROUPS])
    prompts = policy.encode(GROUPS)
    policy.zero_grad()
    mixed = torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if autocast else nullcontext()
    with mixed, Casts() as casts:
        logp = policy.score(prompts, tokens, mask)
    logp.sum().backward()
    return logp.detach(), {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}, casts.number


def test_under_autocast_no_input_is_cast_and_no_bit_changes(policy, monkeypatch):
    ours, gradients, casts = scores_and_gradients(policy, autocast=True)
    for layer in adapted_layers(policy):
        monkeypatch.delattr(layer, "_cast_input_dtype")  # peft's own comes back
    theirs, expected, more = scores_and_gradients(policy, autocast=True)
    assert torch.equal(ours, theirs)
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    assert more - casts >= 7 * len(policy.backbone.language_model.layers)


def test_without_autocast_adapters_compute_in_float32(policy):
    given = []
    hooks = [
        layer.lora_A["default"].register_forward_pre_hook(lambda _, states: given.append(states[0].dtype))
        for layer in adapted_layers(policy)
    ]
    _, gradients, _ = scores_and_gradients(policy, autocast=False)
    for hook in hooks:
        hook.remove()
    assert set(given) == {torch.float32}
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
