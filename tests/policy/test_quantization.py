"""A base in 4 bits: what is quantised, what is not, and that the adapters still learn."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy

GROUPS = [SceneGroups(0, {"sod": 1, "cosod": 1}, annotated=True)[i] for i in range(2)]


@pytest.fixture(scope="module")
def policy() -> FastPolicy:
    return FastPolicy(PolicyConfig("tiny", lora=LoRA(rank=4), load_in_4bit=True))


def test_the_language_models_layers_alone_are_in_4_bits(policy):
    from bitsandbytes.nn.modules import Linear4bit

    quantised = {name for name, part in policy.model.named_modules() if isinstance(part, Linear4bit)}
    layers = len(policy.model.model.language_model.layers)
    assert len(quantised) == 7 * layers
    assert all(".language_model.layers." in name for name in quantised)
    assert all(p.dtype == torch.float32 for p in policy.parameters() if p.requires_grad)
    assert {name.split(".")[-3] for name, p in policy.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_it_samples_and_scores_the_same_numbers_and_learns(policy):
    prompts = policy.encode(GROUPS)
    rollout = policy.sample(prompts, 12, responses=2, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-3)
    tokens, mask = policy.encode_responses([group.response or "" for group in GROUPS])
    scores = policy.score(prompts, rollout.tokens, rollout.mask)
    torch.testing.assert_close(scores.detach(), rollout.logp, atol=1e-4, rtol=0)
    losses = []
    for _ in range(8):
        loss = -policy.score(prompts, tokens, mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_it_comes_close_to_the_whole_model(policy):
    whole = FastPolicy(PolicyConfig("tiny"))
    prompts = whole.encode(GROUPS)
    tokens, mask = whole.encode_responses([group.response or "" for group in GROUPS])
    with torch.no_grad(), policy.reference():
        rounded, exact = (p.score(prompts, tokens, mask)[mask] for p in (policy, whole))
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.5


def test_without_adapters_there_is_nothing_to_train():
    with pytest.raises(ValueError, match=r"give policy\.lora"):
        PolicyConfig("tiny", load_in_4bit=True)
