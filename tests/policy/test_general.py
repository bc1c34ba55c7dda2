"""The general path on each family: one path for sampling and scoring, against transformers' own forward pass."""

import pytest
import torch
from torch import nn

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.general.estimate import key_value_numbers
from lightning_sal.policy.make import make_policy
from lightning_sal.policy.suppressed import placeholder_ids
from lightning_sal.samples import Message

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, group_size=2)
GROUPS = list({SCENES[i].task: SCENES[i] for i in range(12)}.values())  # one of each task
TOKENS = 12


@pytest.fixture(scope="module")
def policy(family_folder):
    policy = make_policy(PolicyConfig(str(family_folder), lora=LoRA(rank=4)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:  # zero at first: then adapters would do nothing and tests would see nothing
            parameter.data.normal_(std=0.05, generator=generator)
    return policy


def sampled(policy, groups=GROUPS, **options):
    prompts = policy.encode(groups)
    return prompts, policy.sample(prompts, TOKENS, generator=torch.Generator().manual_seed(1), **options)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_the_ratio_is_one_on_policy(policy, temperature):
    prompts, rollout = sampled(policy, responses=2, temperature=temperature)
    scored = policy.score(prompts, rollout.tokens, rollout.mask, temperature)
    torch.testing.assert_close(rollout.logp, scored, atol=1e-5, rtol=0)
    assert len(set(rollout.tokens.flatten().tolist())) > TOKENS  # not one and the same token


@torch.no_grad()
def test_scores_are_those_of_transformers_own_forward_pass(policy):
    """One sample at a time, without padding, the response as a part of the text."""
    tokens, mask = policy.encode_responses([group.response for group in GROUPS])
    ours = policy.score(policy.encode(GROUPS), tokens, mask)
    for row, group in enumerate(GROUPS):
        content = [{"type": "image"} for _ in group.images] + [
            {"type": "text", "text": policy.instructions[group.task]}
        ]
        text = policy.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        images = [[image.permute(2, 0, 1) for image in group.images]]
        inputs = policy.processor(
            text=[text.removesuffix("<think>\n")], images=images, add_special_tokens=False, return_tensors="pt"
        )
        response = tokens[row, mask[row]]
        behind = {"input_ids": response, "attention_mask": torch.ones_like(response)}
        length = inputs["input_ids"].shape[1]
        for name, value in inputs.items():
            if value.shape == (1, length):  # of the response too; what is none of an image has type 0
                inputs[name] = torch.cat([value, behind.get(name, torch.zeros_like(response))[None]], dim=1)
        logits = policy.model(**inputs).logits[0].masked_fill(policy.suppressed, float("-inf"))
        expected = logits[-len(response) - 1 : -1].log_softmax(-1).gather(1, response[:, None])[:, 0]
        torch.testing.assert_close(ours[row, mask[row]], expected, atol=3e-5, rtol=0)
        assert (ours[row, ~mask[row]] == 0).all()


def test_adapters_stand_in_the_language_part_alone(policy):
    language = list(policy.model.get_decoder().layers.parameters())
    adapted = [p for name, p in policy.named_parameters() if "lora_" in name]
    assert adapted
    assert all(any(p is own for own in language) for p in adapted)
    assert all(p.requires_grad == any(p is own for own in adapted) for p in policy.parameters())
    for layer in policy.model.get_decoder().layers:  # each of their linear layers, whatever the family calls it
        weights = [name for name, p in layer.named_parameters() if p.ndim == 2 and "lora_" not in name]
        assert weights
        assert all("base_layer" in name for name in weights)


@torch.no_grad()
def test_what_stands_for_an_image_is_never_sampled(policy):
    """Where the model would rather write nothing else."""
    found = placeholder_ids(policy.processor, policy.model.config)
    assert policy.model.config.image_token_id in found
    assert found.isdisjoint(policy.eos_ids)
    head = policy.model.get_output_embeddings()
    wish = torch.zeros(head.weight.shape[0])
    wish[list(found)] = 1000.0
    hook = head.register_forward_hook(lambda _, __, logits: logits + wish)
    try:
        prompts, rollout = sampled(policy)
        assert not found & set(rollout.tokens[rollout.mask].tolist())
        assert rollout.logp.isfinite().all()
        scored = policy.score(prompts, rollout.tokens, rollout.mask)
        torch.testing.assert_close(rollout.logp, scored, atol=1e-3, rtol=0)  # 1000 leaves fewer digits
    finally:
        hook.remove()


@torch.no_grad()
def test_a_response_does_not_depend_on_company(policy):
    _, together = sampled(policy)
    draws = torch.Generator().manual_seed(1)
    for row, group in enumerate(GROUPS):
        alone = policy.sample(policy.encode([group]), TOKENS, generator=draws)
        length = int(alone.mask.sum())
        assert torch.equal(together.tokens[row, :length], alone.tokens[0, :length])


def test_gradients_reach_every_adapter(policy):
    tokens, mask = policy.encode_responses([group.response for group in GROUPS])
    policy.score(policy.encode(GROUPS), tokens, mask).sum().backward()
    without = [name for name, p in policy.named_parameters() if p.requires_grad and not (p.grad != 0).any()]
    policy.zero_grad()
    assert not without


def test_gradients_are_the_same_with_checkpointing(family_folder):
    def gradients(**options):
        torch.manual_seed(0)
        policy = make_policy(PolicyConfig(str(family_folder), lora=LoRA(rank=2), **options))
        tokens, mask = policy.encode_responses([group.response for group in GROUPS[:1]])
        policy.score(policy.encode(GROUPS[:1]), tokens, mask).sum().backward()
        return {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}

    plain, again = gradients(), gradients(gradient_checkpointing=True)
    assert plain
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-5, rtol=1e-5)


def test_the_whole_language_part_is_trained_without_adapters(family_folder):
    policy = make_policy(PolicyConfig(str(family_folder)))
    decoder, head = policy.model.get_decoder(), policy.model.get_output_embeddings()
    language = [*decoder.parameters(), *head.parameters()]
    assert all(p.requires_grad == any(p is own for own in language) for p in policy.parameters())
    assert any(not p.requires_grad for p in policy.parameters())
    sees: nn.Module = policy.model.get_encoder(modality="image")
    assert not any(part.training for part in sees.modules())


def test_a_placeholder_in_a_text_is_refused_by_name(policy):
    placeholder = policy.processor.image_token
    with pytest.raises(ValueError, match="scene-1") as error:
        policy.encode_chats([[GROUPS[0].images[0]]], [(Message("user", f"What is {placeholder}?", 1),)], ["scene-1"])
    assert "\n" not in str(error.value)


@torch.no_grad()
def test_the_cache_that_is_estimated_is_the_one_that_is_filled(policy):
    """By a text that is shorter than any sliding window."""
    ids = policy.processor.tokenizer("Which regions?", add_special_tokens=False, return_tensors="pt")["input_ids"]
    output = policy.model(input_ids=ids, use_cache=True)
    filled = output.get("cache") or output["past_key_values"]  # as it was called before
    kept = [(layer.keys, layer.values) for layer in filled.layers if getattr(layer, "keys", None) is not None]
    assert sum(each.numel() for pair in kept for each in pair) == ids.shape[1] * key_value_numbers(policy.model)
