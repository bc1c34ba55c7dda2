"""The policy: one path for sampling and scoring, against transformers' own forward pass."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.backbone import replace_norms
from lightning_sal.policy.chat import chat_text
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.policy import pad_right
from lightning_sal.samples import Message
from lightning_sal.tasks import WITHOUT_REASONING, TagRegions, register
from lightning_sal.tiny.policy import BRIEF, INSTRUCTIONS, scratch_policy

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=9)
GROUPS = [SCENES[i] for i in range(9)]


@pytest.fixture(scope="module")
def policy():
    return FastPolicy(PolicyConfig("tiny-scratch"))


@pytest.fixture(scope="module")
def adapted():
    policy = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=4)))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:  # zero at first: then adapters would do nothing and tests would see nothing
            parameter.data.normal_(std=0.02, generator=generator)
    return policy


def encoded_responses(policy, groups):
    return policy.encode_responses([group.response for group in groups])


def test_scores_equal_transformers_own_forward(policy):
    """One sample at a time, without padding, by the model's public forward pass, which finds M-RoPE positions itself."""
    groups = [g for g in GROUPS if g.task == "cosod"][:1] + [g for g in GROUPS if g.task == "sod"][:2]
    tokens, mask = encoded_responses(policy, groups)
    ours = policy.score(policy.encode(groups), tokens, mask)
    for row, group in enumerate(groups):
        content = [{"type": "image"} for _ in group.images] + [
            {"type": "text", "text": policy.instructions[group.task]}
        ]
        text = policy.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = policy.processor(
            text=[text + group.response + "<|im_end|>"],
            images=[image.permute(2, 0, 1) for image in group.images],
            return_tensors="pt",
            return_mm_token_type_ids=True,
        )
        logits = policy.model(**inputs).logits[0].float().masked_fill(policy.suppressed, float("-inf"))
        length = int(mask[row].sum())
        logp = logits[-length - 1 : -1].log_softmax(-1)
        expected = logp.gather(1, tokens[row, :length, None])[:, 0]
        torch.testing.assert_close(ours[row, :length], expected, atol=2e-5, rtol=0)
        assert (ours[row, length:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_norms_are_those_of_transformers(dtype):
    stock, fused = scratch_policy()[0].to(dtype), scratch_policy()[0].to(dtype)
    replace_norms(fused)
    assert list(stock.state_dict()) == list(fused.state_dict())
    one, two = stock.model.language_model.norm, fused.model.language_model.norm
    assert type(one) is not type(two)
    states = 3 * torch.randn(64, one.weight.shape[0], dtype=dtype)
    for norm in (one, two):
        norm.weight.data = torch.rand(one.weight.shape[0], generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(two(states), one(states), rtol=3 * torch.finfo(dtype).eps, atol=0)


def test_sampled_log_probabilities_equal_scored_ones(adapted):
    prompts = adapted.encode(GROUPS)
    rollout = adapted.sample(prompts, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scored = adapted.score(prompts, rollout.tokens, rollout.mask)
    torch.testing.assert_close(rollout.logp, scored, atol=1e-5, rtol=0)


def test_temperature_is_one_and_the_same_in_sampling_and_scoring(adapted):
    prompts = adapted.encode(GROUPS[:3])
    rollout = adapted.sample(prompts, 12, temperature=0.7, generator=torch.Generator().manual_seed(1))
    scored = adapted.score(prompts, rollout.tokens, rollout.mask, temperature=0.7)
    torch.testing.assert_close(rollout.logp, scored.detach(), atol=1e-5, rtol=0)


def test_neither_padding_nor_company_changes_a_score(adapted):
    tokens, mask = encoded_responses(adapted, GROUPS)
    together = adapted.score(adapted.encode(GROUPS), tokens, mask)
    for row, group in enumerate(GROUPS):
        alone_tokens, alone_mask = encoded_responses(adapted, [group])
        alone = adapted.score(adapted.encode([group]), alone_tokens, alone_mask)
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=0)


def test_sampling_leaves_no_trace_in_scores(adapted):
    tokens, mask = encoded_responses(adapted, GROUPS[:3])
    before = adapted.score(adapted.encode(GROUPS[:3]), tokens, mask)
    adapted.sample(adapted.encode(GROUPS[3:]), 6, generator=torch.Generator().manual_seed(0))
    after = adapted.score(adapted.encode(GROUPS[:3]), tokens, mask)
    assert torch.equal(before, after)


def test_micro_batches_of_prompts_score_alike(adapted):
    tokens, mask = encoded_responses(adapted, GROUPS)
    prompts = adapted.encode(GROUPS)
    whole = adapted.score(prompts, tokens, mask)
    parts = [
        adapted.score(prompts.select(range(9)[part]), tokens[part], mask[part]) for part in (slice(0, 4), slice(4, 9))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


def test_vision_ids_are_never_sampled_and_have_no_probability(policy):
    config, tokenizer = policy.model.config, policy.processor.tokenizer
    barred = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
    rollout = policy.sample(policy.encode(GROUPS), 40, temperature=5.0, generator=torch.Generator().manual_seed(0))
    assert not torch.isin(rollout.tokens[rollout.mask], torch.tensor(barred)).any()
    width = config.text_config.hidden_size
    logits = policy.logits(torch.randn(2, width), 1.0)
    assert torch.isinf(logits[:, barred]).all()
    assert torch.isfinite(logits[:, tokenizer.convert_tokens_to_ids("<|im_end|>")]).all()


def test_lora_is_on_the_language_model_alone(adapted):
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name and ".language_model." in name for name in trained)
    assert not [name for name, _ in adapted.named_parameters() if "lora_" in name and "visual" in name]
    layers = adapted.model.config.text_config.num_hidden_layers
    assert len(trained) == layers * 7 * 2


def test_full_training_keeps_the_vision_tower_frozen(policy):
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in policy.named_parameters() if ".visual." not in name}


def test_greedy_is_deterministic_and_truncation_is_told(policy):
    prompts = policy.encode(GROUPS[:4])
    one, two = policy.sample(prompts, 5, temperature=0), policy.sample(prompts, 5, temperature=0)
    assert torch.equal(one.tokens, two.tokens)
    ended = torch.isin(one.tokens, torch.tensor(policy.eos_ids)).any(1)
    assert torch.equal(one.truncated, ~ended)


def test_training_mode_and_checkpointing_come_back_after_sampling():
    policy = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=2), gradient_checkpointing=True))
    tokens, mask = encoded_responses(policy, GROUPS[:2])
    prompts = policy.encode(GROUPS[:2])
    rollout = policy.sample(prompts, 4, temperature=0)
    assert policy.training
    assert policy.model.model.language_model.gradient_checkpointing
    plain = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=2)))
    assert torch.equal(rollout.tokens, plain.sample(plain.encode(GROUPS[:2]), 4, temperature=0).tokens)
    policy.score(prompts, tokens, mask).sum().backward()
    assert all(p.grad is not None for n, p in policy.named_parameters() if "lora_B" in n)


IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


@pytest.mark.parametrize("reasoning", [True, False])
def test_a_prompt_is_the_images_and_the_instruction_that_the_model_was_trained_on(policy, reasoning):
    for group in GROUPS:
        asked = (INSTRUCTIONS if reasoning else BRIEF)[f"{group.task}{'' if reasoning else WITHOUT_REASONING}"]
        text = f"<|im_start|>user\n{IMAGE * len(group.images)}{asked}<|im_end|>\n<|im_start|>assistant\n"
        messages = policy.messages(replace(group, reasoning=reasoning))
        assert chat_text(policy.processor, messages) == text
        (prompt,) = policy.encode([replace(group, reasoning=reasoning)]).ids
        assert policy.processor.tokenizer.decode(prompt) == text.replace("<|image_pad|>", "<|image_pad|>" * 16)


@dataclass(frozen=True, kw_only=True)
class Dark(TagRegions):
    """A task whose policy is shown photographs at night."""

    shown: ClassVar[list[torch.Tensor]] = []

    def view(self, image):
        self.shown.append(image)
        return image // 2


def test_a_task_of_ones_own_says_what_is_shown_and_asked(policy):
    """It is registered after the policy was made, which states no instruction for it."""
    task = Dark(name="dark", title="t", instruction="Where?", brief="?", system="You see at night.", tag="rg")
    register(task)
    group = replace(GROUPS[0], task="dark", question="A red disc.")
    prompts = policy.encode([group, group])
    text = policy.processor.tokenizer.decode(prompts.ids[0]).replace("<|image_pad|>" * 16, "<|image_pad|>")
    system, asked = "<|im_start|>system\nYou see at night.<|im_end|>\n", f"{IMAGE}A red disc.\nWhere?"
    assert text == f"{system}<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    assert [id(image) for image in task.shown] == [id(group.images[0])]  # once
    dark = policy.encode([replace(GROUPS[0], images=(group.images[0] // 2,))])
    for features in prompts.visual:
        torch.testing.assert_close(features, dark.visual[0])
    assert policy.instructions["dark"] == "Where?"


def test_a_question_that_holds_a_placeholder_of_an_image_is_refused_and_named(policy):
    group = replace(GROUPS[0], paths=("a.jpg",), question="What is <|image_pad|>?")
    with pytest.raises(ValueError, match=r"^a\.jpg: the text of the prompt holds <\|image_pad\|>"):
        policy.encode([group])


def test_a_conversation_of_several_turns_is_read_as_one_prompt(policy):
    turns = Message("user", "What is it?", 1), Message("assistant", "a disc"), Message("user", "Where?", 1)
    (first, *_), images = GROUPS[0].images, [GROUPS[0].images[0], GROUPS[1].images[0]]
    prompts = policy.encode_chats([images], [turns], ["two photographs"])
    expected = (
        f"<|im_start|>user\n{IMAGE}What is it?<|im_end|>\n<|im_start|>assistant\na disc<|im_end|>\n"
        f"<|im_start|>user\n{IMAGE}Where?<|im_end|>\n<|im_start|>assistant\n"
    )
    read = policy.processor.tokenizer.decode(prompts.ids[0])
    assert read.replace("<|image_pad|>" * 16, "<|image_pad|>") == expected
    alone = policy.encode_chats([[first]], [turns[:1]], ["one"])
    torch.testing.assert_close(prompts.visual[0][:16], alone.visual[0])


def test_a_prompt_that_is_too_long_is_refused_and_named():
    policy = FastPolicy(PolicyConfig("tiny-scratch", max_prompt_tokens=40))
    group = replace(next(g for g in GROUPS if g.task == "cosod"), paths=("a.jpg", "b.jpg"))
    with pytest.raises(ValueError, match=r"a\.jpg, b\.jpg: the prompt has \d+ tokens, more than max_prompt_tokens 40"):
        policy.encode([group])


def test_responses_round_trip_any_text(policy):
    texts = [
        "<think>a red ring</think><answer><rg>[semantic] ring</rg></answer>",
        "ünïcødé 漢字 \U0001f600\n tab\t",
        "",
    ]
    tokens, mask = policy.encode_responses(texts)
    assert policy.decode(tokens, mask) == tuple(texts)


def test_missing_folder_is_one_clear_line():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FastPolicy(PolicyConfig("./nowhere"))


def test_pad_right_builds_masks_from_lengths():
    ids, mask = pad_right([[7, 7], [5]], 7, torch.device("cpu"))
    assert ids.tolist() == [[7, 7], [5, 7]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_random_weights_come_in_the_dtype_that_is_asked_for():
    policy = FastPolicy(PolicyConfig("tiny-scratch", dtype="bfloat16", lora=LoRA(rank=2)))
    kinds = {parameter.requires_grad: parameter.dtype for parameter in policy.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
