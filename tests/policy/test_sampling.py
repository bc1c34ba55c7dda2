"""Sampling behind shared prompts, against one response at a time; and the log-probabilities of whole batches."""

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy import sampling
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.decoding import decoder, reading, state
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.prompts import FastPrompts

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=6)
GROUPS = [SCENES[i] for i in range(6)]  # prompts of two lengths, one and several images
G = 3


@pytest.fixture(scope="module")
def policy():
    """With adapters that do something, and a vocabulary in which every fourth token ends a response."""
    policy = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=4)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    policy.eos_ids = (*policy.eos_ids, *range(0, 400, 4))
    return policy


def sample(policy, prompts, responses, steps=40, temperature=3.0):
    draws = torch.Generator().manual_seed(1)
    return policy.sample(prompts, steps, responses=responses, temperature=temperature, generator=draws)


def each_alone(prompts, responses):
    return prompts.select([row for row in range(len(prompts)) for _ in range(responses)])


def same(one, two):
    assert one.texts == two.texts
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.mask, two.mask)
    assert torch.equal(one.truncated, two.truncated)
    torch.testing.assert_close(one.logp, two.logp, atol=1e-5, rtol=0)


def test_responses_that_share_a_prompt_are_those_that_would_stand_alone(policy):
    prompts = policy.encode(GROUPS)
    shared = sample(policy, prompts, G)
    lengths = shared.mask.sum(1)
    assert lengths.min() < 3
    assert lengths.max() > 8
    same(shared, sample(policy, each_alone(prompts, G), 1))


@pytest.mark.parametrize("off", ["packing", "buckets", "merging"])
def test_what_makes_sampling_fast_changes_nothing(policy, off, monkeypatch):
    prompts = policy.encode(GROUPS)
    fast = sample(policy, prompts, G)
    switch = {
        "packing": (sampling, "_SHRINK", 0.0),
        "buckets": (reading, "_BUCKET", float("inf")),
        "merging": (decoder, "can_merge", lambda *_: False),
    }
    monkeypatch.setattr(*switch[off])
    same(fast, sample(policy, prompts, G))


def test_packing_really_drops_rows(policy, monkeypatch):
    widths = []
    monkeypatch.setattr(state, "chosen", lambda *a, choose=state.chosen: widths.append(a[0].shape[:2]) or choose(*a))
    sample(policy, policy.encode(GROUPS), G)
    rows = [count * responses for count, responses in widths]
    assert rows[0] == len(GROUPS) * G
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] <= 2


@pytest.mark.parametrize("groups", [GROUPS, GROUPS[:1]], ids=["padded", "one length"])
def test_scores_behind_a_shared_prompt_are_those_alone_and_so_are_their_gradients(policy, groups):
    prompts = policy.encode(groups)
    rollout = sample(policy, prompts, G)
    weight = torch.randn(rollout.logp.shape, generator=torch.Generator().manual_seed(2))
    results = []
    for shape in (prompts, each_alone(prompts, G)):
        policy.zero_grad()
        scores = policy.score(shape, rollout.tokens, rollout.mask, temperature=3.0)
        (scores * weight).sum().backward()
        results.append((scores.detach(), [p.grad.clone() for p in policy.parameters() if p.requires_grad]))
    (shared, gradients), (alone, expected) = results
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared, rollout.logp, atol=1e-5, rtol=0)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_attention_scores_alike(policy, attention):
    other = FastPolicy(PolicyConfig("tiny-scratch", attention=attention))
    prompts = other.encode(GROUPS)
    rollout = sample(other, prompts, G, steps=6, temperature=1.0)
    scores = other.score(prompts, rollout.tokens, rollout.mask)
    torch.testing.assert_close(scores.detach(), rollout.logp, atol=1e-5, rtol=0)


def test_the_reference_is_the_policy_that_lora_started_from(policy):
    prompts = policy.encode(GROUPS)
    rollout = sample(policy, prompts, G, steps=6)
    start = FastPolicy(PolicyConfig("tiny-scratch"))
    with torch.no_grad():
        before = policy.score(prompts, rollout.tokens, rollout.mask)
        with policy.reference():
            reference = policy.score(prompts, rollout.tokens, rollout.mask)
        expected = start.score(prompts, rollout.tokens, rollout.mask)
        assert torch.equal(policy.score(prompts, rollout.tokens, rollout.mask), before)
    torch.testing.assert_close(reference, expected, atol=1e-5, rtol=0)
    assert (before - reference).abs().max() > 1e-3
    with pytest.raises(ValueError, match="without adapters"), start.reference():
        pass


def test_tokens_are_drawn_with_their_probabilities():
    """200,000 draws of seven tokens, two of them impossible: each share within five standard errors."""
    probability = torch.tensor([0.0, 0.5, 0.2, 0.15, 0.1, 0.05, 0.0])
    draws = torch.rand(200_000, 1, generator=torch.Generator().manual_seed(0))
    token, found = state.chosen(probability.log().expand(200_000, 1, -1), draws)
    shares = torch.bincount(token.flatten(), minlength=7) / len(draws)
    error = (probability * (1 - probability) / len(draws)).sqrt()
    assert ((shares - probability).abs() <= 5 * error).all()
    torch.testing.assert_close(found, probability[token])


@pytest.mark.parametrize("draw", [0.0, 1 - 2.0**-24])
def test_no_draw_hits_a_token_without_probability(draw):
    scores = torch.randn(64, 1, 1000, generator=torch.Generator().manual_seed(0))
    scores[..., :10] = scores[..., -10:] = float("-inf")
    token, _ = state.chosen(scores, torch.full((64, 1), draw))
    assert ((token >= 10) & (token < 990)).all()


def test_joined_prompts_score_as_they_did_apart(policy):
    one, two = policy.encode(GROUPS[:1]), policy.encode(GROUPS[1:])
    both = FastPrompts.joined([one, two])
    together = policy.encode(GROUPS)
    assert both.lengths == together.lengths
    tokens, mask = policy.encode_responses([group.response for group in GROUPS])
    torch.testing.assert_close(
        policy.score(both, tokens, mask), policy.score(together, tokens, mask), atol=1e-5, rtol=0
    )
