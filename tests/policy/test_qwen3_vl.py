"""Qwen3-VL by the same code: a small one with random weights against transformers' own forward pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.explanations.cases import cases_of
from lightning_sal.explanations.methods import METHODS
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samples import Rollout
from lightning_sal.tasks import task_of
from lightning_sal.tiny.policy import scratch_policy

SCENES = SceneGroups(0, {"sod": 1, "cosod": 1}, annotated=True)
GROUPS = [SCENES[i] for i in range(3)]  # one and several images
DEEP = (0, 2)  # vision blocks whose features the first layers of the language model get


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """As on a hub, with the embedded tokenizer and processor."""
    torch.manual_seed(0)
    tiny, processor, _ = scratch_policy()
    special = {name: value for name, value in tiny.config.to_dict().items() if name.endswith("_token_id")}
    vision = tiny.config.vision_config
    config = Qwen3VLConfig(
        text_config=dict(
            vocab_size=tiny.config.text_config.vocab_size,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[4, 2, 2], mrope_interleaved=True),
        ),
        vision_config=dict(
            depth=3,
            hidden_size=32,
            intermediate_size=48,
            num_heads=2,
            out_hidden_size=64,
            patch_size=vision.patch_size,
            spatial_merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
            num_position_embeddings=64,
            deepstack_visual_indexes=list(DEEP),
        ),
        tie_word_embeddings=False,
        **special,
    )
    model = Qwen3VLForConditionalGeneration(config)
    for parameter in model.parameters():  # large enough that every part matters
        parameter.data.normal_(std=0.08) if parameter.ndim > 1 else parameter.data.add_(0.05)
    model.generation_config = tiny.generation_config
    folder = tmp_path_factory.mktemp("qwen3")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def policy(folder) -> FastPolicy:
    return FastPolicy(PolicyConfig(str(folder)))


def test_scores_equal_transformers_own_forward(policy, folder):
    stock = Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()
    tokens, mask = policy.encode_responses([group.response or "" for group in GROUPS])
    ours = policy.score(policy.encode(GROUPS), tokens, mask).detach()
    for row, group in enumerate(GROUPS):
        content = [{"type": "image"}] * len(group.images) + [{"type": "text", "text": policy.instructions[group.task]}]
        text = policy.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = policy.processor(
            text=[text + (group.response or "") + "<|im_end|>"],
            images=[image.permute(2, 0, 1) for image in group.images],
            return_tensors="pt",
            return_mm_token_type_ids=True,
        )
        with torch.no_grad():
            logits = stock(**inputs).logits[0].masked_fill(policy.suppressed, float("-inf"))
        length = int(mask[row].sum())
        expected = logits[-length - 1 : -1].log_softmax(-1).gather(1, tokens[row, :length, None])[:, 0]
        torch.testing.assert_close(ours[row, :length], expected, atol=2e-5, rtol=0)


def test_features_of_early_blocks_matter(policy, monkeypatch):
    tokens, mask = policy.encode_responses([group.response or "" for group in GROUPS])
    prompts = policy.encode(GROUPS)
    with torch.no_grad():
        whole = policy.score(prompts, tokens, mask)
        monkeypatch.setattr(policy.backbone, "deep_features", lambda *_: {})
        assert (policy.score(prompts, tokens, mask) - whole).abs().max() > 1e-2


def test_sampled_log_probabilities_equal_scored_ones_behind_a_shared_prompt(policy):
    prompts = policy.encode(GROUPS)
    rollout = policy.sample(prompts, 12, responses=3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shared = policy.score(prompts, rollout.tokens, rollout.mask)
        rows = [row for row in range(len(prompts)) for _ in range(3)]
        alone = policy.score(prompts.select(rows), rollout.tokens, rollout.mask)
    torch.testing.assert_close(rollout.logp, shared, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, shared, atol=1e-5, rtol=0)


def test_adapters_are_on_the_language_model_alone_and_kept_features_serve(folder, tmp_path):
    policy = FastPolicy(PolicyConfig(str(folder), lora=LoRA(rank=2), feature_cache=str(tmp_path)))
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 7 * 3
    assert all(".language_model." in name for name in trained)
    first, again = policy.encode(GROUPS), policy.encode(GROUPS)
    for one, two in zip(first.visual, again.visual, strict=True):
        assert one.shape[1] == 64 * (1 + len(DEEP))
        assert torch.equal(one, two)


def test_another_kind_of_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"is a llama, by its config\.json, and no image-text-to-text model"):
        FastPolicy(PolicyConfig(str(tmp_path)))


def test_every_explanation_is_there_and_gradient_times_input_counts_the_features_of_early_blocks(folder):
    policy = FastPolicy(PolicyConfig(str(folder))).double().requires_grad_(False).eval()
    group = next(group for group in GROUPS if len(group.images) > 1)
    tokens, mask = policy.encode_responses([group.response or ""])
    with torch.no_grad():
        prompts = policy.encode([group])
    rollout = Rollout((group.response or "",), tokens, mask, torch.zeros(mask.shape), torch.tensor([False]))
    (case,) = cases_of(policy, prompts, rollout, [group], [task_of(group).parse(group.response or "")])
    for method in METHODS.values():
        for maps in method.maps(case):
            assert all(map.isfinite().all() and map.any() for map in maps), method.name

    def logit(scale):  # as all features of the images grow at once
        with torch.no_grad():
            hidden = case.read(replace(prompts, visual=(prompts.visual[0] * scale,)))
            return float(case.logit(hidden, case.labels[0]))

    slope = (logit(1 + 1e-6) - logit(1 - 1e-6)) / 2e-6
    maps = METHODS["gradient-x-input"].maps(case)[0]
    assert sum(float(map.double().sum()) for map in maps) == pytest.approx(slope, rel=1e-4)
