"""Decoding on lasting buffers, against one forward pass of transformers a token; and what a GPU would be given."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy import sampling
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.decoding import decoder, kept, parts
from lightning_sal.policy.decoding.graphs import Graphs
from lightning_sal.policy.decoding.linear import joined, side_by_side
from lightning_sal.policy.decoding.memory import PartedMemory, hidden
from lightning_sal.policy.fast import FastPolicy

SCENES = SceneGroups(3, {"sod": 1, "cosod": 1}, size=4)
GROUPS = [SCENES[i] for i in range(4)]  # prompts of two lengths, one and several images
STEPS = 12


def with_adapters(dtype="float32", rank=4):
    policy = FastPolicy(PolicyConfig("tiny-scratch", dtype=dtype, lora=LoRA(rank=rank)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    policy.eos_ids = (*policy.eos_ids, *range(0, 400, 20))  # so that some end early
    return policy


@pytest.fixture(scope="module")
def policy():
    return with_adapters()


def sample(policy, prompts, responses=3, steps=STEPS, temperature=2.0):
    draws = torch.Generator().manual_seed(1)
    return policy.sample(prompts, steps, responses=responses, temperature=temperature, generator=draws)


def same(one, two, tolerance=1e-6):
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.mask, two.mask)
    assert torch.equal(one.truncated, two.truncated)
    torch.testing.assert_close(one.logp, two.logp, atol=tolerance, rtol=tolerance)


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    """Shapes that stay, lengths rounded up, nothing packed."""
    monkeypatch.setattr(sampling, "_PACES", {})


def token_by_token(policy, group, draws, temperature):
    """Tokens and log-probabilities by definition: one forward pass of the model itself over all that was said before."""
    model, processor = policy.model, policy.processor
    content = [{"type": "image"}] * len(group.images) + [{"type": "text", "text": policy.instructions[group.task]}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    inputs = processor(
        text=[text],
        images=[image.permute(2, 0, 1) for image in group.images],
        return_tensors="pt",
        return_mm_token_type_ids=True,
    )
    inputs["pixel_values"] = inputs["pixel_values"].double()
    said, logps = [], []
    for draw in draws.tolist():
        logits = model(**inputs).logits[0, -1] / temperature
        probability = logits.masked_fill(policy.suppressed, float("-inf")).softmax(0)
        below = probability.cumsum(0)
        token = int((below <= min(draw, 1 - 2**-22) * below[-1]).sum())
        said.append(token)
        logps.append(float(probability[token].log()))
        if token in policy.eos_ids:
            break
        one = torch.tensor([[token]])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], one], dim=1)
        for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
            inputs[name] = torch.cat([inputs[name], torch.full_like(one, value)], dim=1)
    return said, logps


@torch.no_grad()
@pytest.mark.parametrize("where", ["cpu", "accelerator"])
def test_tokens_and_log_probabilities_are_those_by_definition(where, monkeypatch):
    """In float64: the very tokens, and log-probabilities to the rounding of float32, in which they are kept."""
    policy = with_adapters().double().eval()
    if where == "accelerator":
        monkeypatch.setattr(sampling, "_PACES", {})
    draws = torch.rand(len(GROUPS) * 2, STEPS, generator=torch.Generator().manual_seed(1))
    rollout = sample(policy, policy.encode(GROUPS), responses=2)
    lengths = rollout.mask.sum(1)
    assert lengths.min() < STEPS == lengths.max()
    for row, length in enumerate(lengths.tolist()):
        said, logps = token_by_token(policy, GROUPS[row // 2], draws[row], 2.0)
        assert rollout.tokens[row, :length].tolist() == said
        torch.testing.assert_close(rollout.logp[row, :length], torch.tensor(logps), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("responses", [1, 3])
@pytest.mark.parametrize("many", [1, 2, 4], ids=lambda many: f"{many} parts")
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "joined"])
def test_shapes_that_stay_give_what_shapes_that_shrink_give(
    policy, responses, many, merge, as_on_an_accelerator, monkeypatch
):
    prompts = policy.encode(GROUPS)
    if not merge:
        monkeypatch.setattr(decoder, "can_merge", lambda *_: False)
    monkeypatch.setattr(sampling, "parts_of", lambda *_: many)
    found = [sample(policy, prompts, responses)]
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_PACES", {"cpu": sampling.Pace(1, 1, 1, packs=True)})
        patch.setattr(sampling, "parts_of", lambda *_: 1)
        patch.setattr(decoder, "can_merge", lambda *_: True)
        found.append(sample(policy, prompts, responses))
    same(*found)


def test_no_part_of_a_prompt_is_padding_alone(policy, monkeypatch, as_on_an_accelerator):
    """Of the shortest prompt beside the longest, with as many parts as may be."""
    prompts = policy.encode(GROUPS)
    seen, begin = [], PartedMemory.begin
    monkeypatch.setattr(sampling, "parts_of", lambda *_: 16)
    monkeypatch.setattr(PartedMemory, "begin", lambda memory, real: seen.append(memory) or begin(memory, real))
    sample(policy, prompts, steps=2)
    (memory,) = seen
    assert memory.parts == 16
    assert (memory.prompt_mask == 0).any(-1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parts_merged_by_their_log_sum_exp_are_attention_over_all(dtype):
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(2, 3, size, 8, dtype=dtype, generator=generator) for size in (5, 24, 24))
    mask = torch.zeros(2, 1, 5, 24, dtype=dtype)
    mask[0, ..., 9:] = hidden(dtype)
    expected = nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    for kernel in (parts.with_log_sum_exp, parts.by_hand):
        pieces = [
            kernel(query, keys[:, :, at::4], values[:, :, at::4], mask[..., at::4].contiguous()) for at in range(4)
        ]
        found = parts.merge([(out[:, None], sums[:, None]) for out, sums in pieces])
        torch.testing.assert_close(found, expected)


def test_in_half_precision_with_adapters_the_log_probabilities_are_those_of_scoring_but_for_rounding():
    """The mean over many tokens, of which single ones are a few hundredths off in bfloat16."""
    policy = with_adapters("bfloat16")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        prompts = policy.encode(GROUPS)
        rollout = sample(policy, prompts, responses=4, steps=24)
        drift = (rollout.logp - policy.score(prompts, rollout.tokens, rollout.mask, 2.0))[rollout.mask]
        with policy.reference():
            other = (rollout.logp - policy.score(prompts, rollout.tokens, rollout.mask, 2.0))[rollout.mask]
    assert drift.abs().mean() < 0.02
    assert drift.mean().abs() < 0.01
    assert other.abs().mean() > 3 * drift.abs().mean()  # the adapters count


def layers(count=3, rank=None):
    made = nn.ModuleList([nn.Linear(6, size) for size in range(2, 2 + count)])
    if rank:
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(
            LoraConfig(r=rank, lora_alpha=3, target_modules=["0", "2"], init_lora_weights=False), made
        )
    return list(made)


@torch.no_grad()
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("own", [True, False])
def test_layers_of_one_input_are_one_map_whose_weights_are_theirs(rank, own):
    made, x, rest = layers(rank=rank), torch.randn(5, 6), torch.randn(5, 9)
    found = joined(made, torch.float32, own=own)
    expected = torch.cat([layer(x) for layer in made], dim=-1)
    torch.testing.assert_close(found(x), expected)
    torch.testing.assert_close(found.added(rest, x), rest + expected)
    for parameter in nn.ModuleList(made).parameters():  # as an optimiser does it
        parameter.add_(0.1)
    if own:
        found.refresh()
    else:  # whose weights stay nowhere, it is made anew
        found = joined(made, torch.float32, own=False)
    torch.testing.assert_close(found(x), torch.cat([layer(x) for layer in made], dim=-1))


def test_nothing_is_held_twice_and_what_moves_is_joined_again():
    made = layers()
    weights = [layer.weight for layer in made]
    whole = side_by_side(weights)
    assert side_by_side(weights).data_ptr() == whole.data_ptr()
    assert {weight.untyped_storage().data_ptr() for weight in weights} == {whole.untyped_storage().data_ptr()}
    moved = copy.deepcopy(made[1].weight.data)
    made[1].weight.data = moved
    again = side_by_side(weights)
    assert again.data_ptr() != whole.data_ptr()
    torch.testing.assert_close(again, torch.cat([weight.detach() for weight in weights]))


def test_weights_of_a_model_that_others_move_stay_where_they_are(policy):
    before = [parameter.data_ptr() for parameter in policy.parameters()]
    decoder.Decoder(policy.backbone, torch.float32, policy.suppressed, own=False)
    assert before == [parameter.data_ptr() for parameter in policy.parameters()]


@pytest.fixture
def captured(monkeypatch, as_on_an_accelerator):
    """Captures on the CPU, where a capture takes the step and a replay does it; each capture is noted."""
    made = []

    def capture(step):
        made.append(step)
        return step

    monkeypatch.setattr(kept, "CAPTURES", "cpu")
    monkeypatch.setattr(kept, "Graphs", lambda: Graphs(capture))
    return made


def test_steps_are_captured_once_a_shape_and_replayed_with_the_weights_of_the_moment(captured):
    policy = with_adapters()
    prompts = policy.encode(GROUPS)
    first = sample(policy, prompts)
    assert len(captured) == 1  # after two steps one by one
    again = sample(policy, prompts)
    same(first, again)
    assert len(captured) == 1
    sample(policy, prompts, responses=2)
    assert len(captured) == 2
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-1)
    changed = sample(policy, prompts)
    assert len(captured) == 2
    scores = policy.score(prompts, changed.tokens, changed.mask, 2.0)
    torch.testing.assert_close(changed.logp, scores, atol=1e-5, rtol=0)
    assert not torch.equal(changed.tokens, first.tokens)


def test_weights_that_have_moved_are_captured_anew(captured, monkeypatch):
    monkeypatch.setattr(decoder, "can_merge", lambda *_: False)
    policy = with_adapters()
    prompts = policy.encode(GROUPS)
    first = sample(policy, prompts)
    for parameter in policy.parameters():
        parameter.data = parameter.data.clone()
    same(first, sample(policy, prompts))
    assert len(captured) == 2


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "joined"])
def test_what_validation_samples_first_does_not_hinder_training(captured, merge, monkeypatch):
    """Lightning validates in inference mode, whose tensors no gradient may meet."""
    if not merge:
        monkeypatch.setattr(decoder, "can_merge", lambda *_: False)
    policy = FastPolicy(PolicyConfig("tiny-scratch"))  # whose own weights are trained
    with torch.inference_mode():
        prompts = policy.encode(GROUPS)
        before = sample(policy, prompts)
    prompts = policy.encode(GROUPS)
    same(before, sample(policy, prompts))
    policy.score(prompts, before.tokens.clone(), before.mask.clone()).sum().backward()
    torch.optim.SGD(policy.parameters(), lr=1e-3).step()
    changed = sample(policy, prompts)
    scores = policy.score(prompts, changed.tokens, changed.mask, 2.0)
    torch.testing.assert_close(changed.logp, scores.detach(), atol=1e-5, rtol=0)


def test_a_stream_and_a_rollout_beside_it_do_not_touch_each_other(captured, policy, monkeypatch):
    monkeypatch.setattr(policy, "eos_ids", policy.eos_ids[:1])
    alone = sample(policy, policy.encode(GROUPS))
    prompts = policy.encode(GROUPS[:1])
    suppressed = policy.suppressed.clone()
    policy.suppressed[list(policy.eos_ids)] = True  # so that it goes on
    try:
        expected = policy.sample(prompts, STEPS, temperature=0.0).texts[0]
        stream = policy.stream(prompts, STEPS)
        said = next(stream)
        sample(policy, policy.encode(GROUPS))
        for text in stream:
            said = text
    finally:
        policy.suppressed.copy_(suppressed)
    assert expected.startswith(said)
    assert said
    same(alone, sample(policy, policy.encode(GROUPS)))


@torch.no_grad()
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "joined"])
def test_a_step_is_one_graph_without_a_break(policy, merge, as_on_an_accelerator, monkeypatch):
    if not merge:
        monkeypatch.setattr(decoder, "can_merge", lambda *_: False)
    import torch._dynamo as dynamo

    dynamo.reset()
    dynamo.utils.counters.clear()

    @contextmanager
    def compiled():
        inner = sampling.State.advance
        step = torch.compile(inner, fullgraph=True, backend="eager", dynamic=False)
        monkeypatch.setattr(sampling.State, "advance", step)
        yield
        monkeypatch.setattr(sampling.State, "advance", inner)

    prompts = policy.encode(GROUPS)
    expected = sample(policy, prompts)
    with compiled():
        found = sample(policy, prompts)
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not dynamo.utils.counters["graph_break"]
    same(expected, found)
    dynamo.reset()
