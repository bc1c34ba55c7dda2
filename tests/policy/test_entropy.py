"""Entropy of the policy and embeddings of its responses, from the pass that scores them."""

import math

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy import fast as policy_file
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.log_probs import log_probs_and_entropy, places, reading_rows

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=9)
GROUPS = [SCENES[i] for i in range(6)]


@pytest.fixture(scope="module")
def policy():
    """With adapters that do something."""
    policy = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=4)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return policy


@pytest.fixture(scope="module")
def sampled(policy):
    """Prompts, and two responses to each, of unequal length."""
    prompts = policy.encode(GROUPS)
    rollout = policy.sample(prompts, 12, responses=2, generator=torch.Generator().manual_seed(1))
    mask = rollout.mask & (torch.arange(rollout.mask.shape[1]) < torch.arange(2, 14)[:, None])
    return prompts, rollout.tokens, mask


def by_hand(policy, row, tokens, temperature):
    """Entropy of each token and the last hidden state, from transformers' own forward pass without padding."""
    group = GROUPS[row]
    content = [{"type": "image"} for _ in group.images] + [{"type": "text", "text": policy.instructions[group.task]}]
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = policy.processor(
        text=[text],
        images=[image.permute(2, 0, 1) for image in group.images],
        return_tensors="pt",
        return_mm_token_type_ids=True,
    )
    ids = torch.cat([inputs["input_ids"], tokens[None]], dim=1)
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(tokens)))
    with torch.no_grad():
        output = policy.model(**inputs, output_hidden_states=True)
    logits = output.logits[0, -len(tokens) - 1 : -1].double() / temperature
    logits[:, policy.suppressed] = -math.inf
    p = logits.softmax(-1)
    terms = torch.where(p > 0, p * p.clamp(min=1e-300).log(), 0.0)
    return -terms.sum(-1), output.hidden_states[-1][0, -1]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_entropy_and_embeddings_are_those_of_transformers_own_forward(policy, sampled, temperature):
    prompts, tokens, mask = sampled
    scores = policy.score_tokens(prompts, tokens, mask, temperature, entropy="value")
    assert not scores.entropy.requires_grad
    assert not scores.last.requires_grad
    for row in range(len(tokens)):
        length = int(mask[row].sum())
        entropy, last = by_hand(policy, row // 2, tokens[row, :length], temperature)
        torch.testing.assert_close(scores.entropy[row, :length].double(), entropy, atol=2e-5, rtol=0)
        torch.testing.assert_close(scores.last[row], last, atol=2e-4, rtol=1e-4)
        assert (scores.entropy[row, length:] == 0).all()
    assert scores.entropy.max() < math.log((~policy.suppressed).sum())
    assert torch.equal(scores.logp, policy.score(prompts, tokens, mask, temperature))
    assert policy.score_tokens(prompts, tokens, mask).entropy is None


def test_micro_batches_and_chunks_change_neither(policy, sampled, monkeypatch):
    prompts, tokens, mask = sampled
    whole = policy.score_tokens(prompts, tokens, mask, entropy="value")
    monkeypatch.setattr(policy_file, "_MOST_LOGITS", 3 * policy.suppressed.numel())
    for row in range(len(GROUPS)):
        rows = slice(2 * row, 2 * row + 2)
        length = int(mask[rows].sum(1).max())
        part = policy.score_tokens(
            prompts.select([row]), tokens[rows, :length], mask[rows, :length], entropy="gradient"
        )
        torch.testing.assert_close(part.entropy, whole.entropy[rows, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(part.last, whole.last[rows], atol=1e-4, rtol=1e-4)


def test_impossible_tokens_add_nothing():
    """Probabilities by hand; the one that is impossible takes no gradient either."""
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    logits = p.log().requires_grad_()
    ids = torch.tensor([0, 0, 2])
    logp, entropy = log_probs_and_entropy(lambda states: states.clone(), logits, ids, 8, "gradient")
    expected = [math.log(2), 0.0, -sum(p * math.log(p) for p in (0.2, 0.3, 0.5))]
    torch.testing.assert_close(entropy, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(logp.exp(), torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64))
    (slope,) = torch.autograd.grad(entropy.sum() + logp.sum(), logits)
    assert torch.equal(slope[p == 0], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_gradient_is_that_of_autograd_through_all_logits_at_once(size):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(7, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(2, 11, (7,), generator=generator)
    barred = torch.arange(11) < 2

    def logits(states):
        return (states @ head.T).masked_fill(barred, -math.inf)

    log_p = (states @ head.T)[..., 2:].log_softmax(-1)  # the barred ones left out altogether
    expected = -(log_p.exp() * log_p).sum(-1)
    chosen = log_p.gather(1, ids[:, None] - 2)[:, 0]
    theirs = torch.autograd.grad((expected * 0.3 + chosen.sin()).sum(), (states, head))
    logp, entropy = log_probs_and_entropy(logits, states, ids, size, "gradient")
    assert entropy is not None
    torch.testing.assert_close(logp, chosen)
    torch.testing.assert_close(entropy, expected)
    ours = torch.autograd.grad((entropy * 0.3 + logp.sin()).sum(), (states, head))
    torch.testing.assert_close(ours, theirs)


def test_the_value_alone_leaves_the_gradient_as_it_was():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(12, 8, generator=generator, requires_grad=True)
    head, ids = torch.randn(11, 8, generator=generator), torch.randint(11, (12,), generator=generator)
    plain, nothing = log_probs_and_entropy(lambda states: states @ head.T, states, ids, 4)
    both, entropy = log_probs_and_entropy(lambda states: states @ head.T, states, ids, 4, "value")
    assert nothing is None
    assert entropy is not None
    assert not entropy.requires_grad
    (expected,) = torch.autograd.grad(plain.sum(), states)
    (found,) = torch.autograd.grad(both.sum(), states)
    assert torch.equal(found, expected)


def test_hidden_states_are_read_where_they_predict():
    """The ends of two prompts, with two responses of 2 tokens behind each: by hand."""
    rows = reading_rows(2, 2, 2, torch.device("cpu"))
    assert rows.tolist() == [[0, 1, 2], [0, 3, 4], [5, 6, 7], [5, 8, 9]]


def test_lengths_that_are_known_give_what_the_mask_says(policy, sampled):
    prompts, tokens, mask = sampled
    lengths = mask.sum(1).tolist()
    assert torch.equal(places(mask, lengths), places(mask, None))
    one, two = (policy.score_tokens(prompts, tokens, mask, lengths=given) for given in (lengths, None))
    assert torch.equal(one.logp, two.logp)
