"""What a CUDA graph asks of a decoding step: it waits for nothing, copies nothing, and is the same list of operations on the
same buffers each time. And how many kernels it is."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.policy import sampling
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.decoding import decoder
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.tiny.scenes import scene_group
from tests.device import pretend
from tests.device.counting import counting, tracing

GROUPS = [scene_group(0, task, 0) for task in ("sod", "sis", "cosod")]  # prompts of two lengths
RESPONSES, STEPS = 4, 40


def policy_of(kind, device):
    """A small policy; `joined` is as a large one decodes, its weights not merged."""
    torch.manual_seed(0)
    dtype = "bfloat16" if kind == "half" else "float32"
    policy = FastPolicy(PolicyConfig("tiny-early", dtype=dtype, lora=LoRA(rank=4)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return policy.to(device)


def rollout(policy, parts, monkeypatch):
    monkeypatch.setattr(sampling, "parts_of", lambda *_: parts)
    generator = torch.Generator(policy.device).manual_seed(1)
    with torch.no_grad():
        return policy.sample(policy.encode(GROUPS), STEPS, responses=RESPONSES, generator=generator)


@pytest.fixture(params=["merged", "joined", "half"])
def policy(request, monkeypatch):
    if request.param != "merged":
        monkeypatch.setattr(decoder, "can_merge", lambda *_: False)
    return policy_of(request.param, pretend.device())


@pytest.mark.parametrize("parts", [1, 4])
def test_a_step_can_be_captured(policy, parts, monkeypatch):
    inner, traces, counts = sampling.State.advance, [], []

    def advance(state):
        with counting() as count, tracing() as trace:
            inner(state)
        traces.append(trace)
        counts.append(count)

    monkeypatch.setattr(sampling.State, "advance", advance)
    rollout(policy, parts, monkeypatch)
    assert len(traces) > 10
    for count in counts:
        assert not count.waits, str(count)
        assert not count.copies, str(count)
        assert not count.queued, str(count)
    assert traces[3].difference(traces[7]) is None


def test_how_many_kernels_a_token_is(policy, monkeypatch):
    """Where there were 84 a layer: 2 norms and an attention, each one kernel on a GPU; 4 products, each with 2 for its
    adapters; 4 of the rotation; keys and values together; queries and what they saw, each put in order; 2 of the gate."""
    kernels, inner = [], sampling.State.advance

    def advance(state):
        with counting() as count:
            inner(state)
        here = count.within("policy/decoding/decoder.py")
        by_hand = [at for at in here.kernels if at.function == "look" or at.file == "policy/decoding/layer.py"]
        kernels.append(sum(n for at, n in here.kernels.items() if at not in by_hand) + 3 * layers)

    monkeypatch.setattr(sampling.State, "advance", advance)
    layers = len(policy.backbone.decoder_layers)
    rollout(policy, 1, monkeypatch)
    assert len(set(kernels)) == 1
    assert kernels[0] <= 25 * layers


def test_looks_at_what_has_ended_wait_once_in_sixteen_steps(policy, monkeypatch):
    with counting() as counts:
        found = rollout(policy, 1, monkeypatch)
    steps = found.tokens.shape[1]
    waits = [place for place, count in counts.waits.items() for _ in range(count) if place.within("policy/sampling.py")]
    assert len(waits) <= steps // 16 + 3, str(counts)  # and once each for lengths, text and the end


def test_the_device_gives_what_the_cpu_gives(monkeypatch):
    monkeypatch.setattr(decoder, "can_merge", lambda *_: False)
    draws = torch.rand(len(GROUPS) * RESPONSES, STEPS, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(torch, "rand", lambda *_, device, **__: draws.to(device))
    here, there = (rollout(policy_of("joined", device), 1, monkeypatch) for device in ("cpu", pretend.device()))
    assert here.texts == there.texts
    torch.testing.assert_close(there.logp.cpu(), here.logp, atol=1e-5, rtol=0)
