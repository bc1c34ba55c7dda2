"""Attribution maps against a direct computation with whole attention matrices, and against the values of the public code."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.attribution import attribution_maps, token_contributions
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.selfcheck import small_model

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "saliency_alignment" / "saliency_model_a"
# words, an image of 2 x 3 visual tokens, one of 1 x 2, reasoning, answer; 1 stands for a visual token
IDS = torch.tensor([[5, 3, *[1] * 6, 4, 6, 7, 3, *[1] * 2, 4, 8, 9, 10, 11, 12, 13, 14, 15, 9, 5]])
GRIDS = torch.tensor([[1, 4, 6], [1, 2, 4]])
REASONING, ANSWER = (17, 20), (22, 24)
MODELS = ["qwen2_5_vl", "qwen3_vl"]


@torch.no_grad()
def made(kind, adapters=False):
    """A small model with random weights in float64, with adapters that do something where asked."""
    model = small_model(kind)
    if adapters:
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
        config = LoraConfig(r=3, target_modules=rf".*language_model.*\.({'|'.join(targets)})")
        model = get_peft_model(model, config)
        generator = torch.Generator().manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.3, generator=generator)
    return model.double().eval()


def patches():
    return torch.randn(int(GRIDS.prod(1).sum()), 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def base_of(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def exact_softmax(scores, dim, dtype=None):
    """In float64, where transformers rounds to float32."""
    return scores.softmax(dim)


class Direct:
    """One forward pass of transformers with eager attention: its attention rows, values, and what each part adds."""

    def __init__(self, model):
        base = base_of(model)
        self.text = base.model.language_model
        self.values, self.added, self.last, hooks = [], [], [], []
        for layer in self.text.layers:
            hooks.append(layer.self_attn.v_proj.register_forward_hook(lambda *a: self.values.append(a[2][0])))
            hooks.append(layer.mlp.register_forward_hook(lambda *a: self.added.append(a[2][0])))
        hooks.append(self.text.norm.register_forward_pre_hook(lambda _, a: self.last.append(a[0][0])))
        hooks.append(self.text.layers[0].register_forward_pre_hook(lambda _, a: self.added.append(a[0][0])))
        before = base.config.text_config._attn_implementation
        base.config.text_config._attn_implementation = "eager"
        kinds = (IDS == 1).int()
        with mock.patch("torch.nn.functional.softmax", exact_softmax):
            output = model(
                input_ids=IDS, pixel_values=patches(), image_grid_thw=GRIDS, mm_token_type_ids=kinds,
                output_attentions=True,
            )  # fmt: skip
        base.config.text_config._attn_implementation = before
        for hook in hooks:
            hook.remove()
        self.attention = [each[0] for each in output.attentions]  # (H, S, S) a layer
        self.logits = output.logits[0]
        self.eps = base.config.text_config.rms_norm_eps
        self.gain, self.rows = self.text.norm.weight, base.lm_head.weight

    def logit_of(self, vectors, token):
        """What vectors (..., C) that were added to the hidden state before `token` add to its logit."""
        rms = (self.last[0][token - 1].square().mean() + self.eps).sqrt()
        return (vectors * self.gain / rms) @ self.rows[IDS[0, token]]

    def contributions(self, token, weigh):
        """(S,) of all tokens, where `weigh` gives the weights (H, S) of a layer in place of its attention row."""
        total = 0.0
        for layer, attention, value in zip(self.text.layers, self.attention, self.values, strict=True):
            heads = attention.shape[0]
            width = layer.self_attn.head_dim
            each = value.unflatten(1, (-1, width)).transpose(0, 1)  # (K, S, D)
            each = each.repeat_interleave(heads // len(each), dim=0)
            seen = weigh(attention)[..., None] * each  # (H, S, D)
            total = total + layer.self_attn.o_proj(seen.transpose(0, 1).flatten(1))  # (S, C): A x S x C in all
        return self.logit_of(total, token)


def images_of(row):
    """The maps of the two images out of a row of all tokens."""
    return [row[2:8].view(2, 3), row[12:14].view(1, 2)]


@torch.no_grad()
def chain(direct, convention):
    first, last = REASONING
    total = 0.0
    for token in range(ANSWER[0], ANSWER[1] + 1):

        def weigh(attention, token=token):
            shift = 0 if convention == "key" else 1
            through = attention[:, token - 1, first : last + 1]  # keys of the reasoning
            return torch.einsum("hj,hjp->hp", through, attention[:, first - shift : last + 1 - shift])

        total = total + direct.contributions(token, weigh)
    return images_of(total)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("convention", ["key", "emit"])
def test_maps_through_the_reasoning_equal_a_direct_computation(kind, adapters, convention):
    model = made(kind, adapters)
    expected = chain(Direct(model), convention)
    found = attribution_maps(model, IDS, patches(), GRIDS, reasoning=REASONING, answer=ANSWER, convention=convention)
    assert [each.shape for each in found] == [(2, 3), (1, 2)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("kind", MODELS)
def test_direct_contributions_of_all_tokens_and_of_what_no_token_owns_are_the_logit(kind):
    """Completeness: embedding, MLPs (and, for Qwen3-VL, earlier features, at visual tokens alone) are what no token owns."""
    model = made(kind, adapters=True)
    with torch.no_grad():
        direct = Direct(model)
        found = token_contributions(model, IDS, patches(), GRIDS, answer=ANSWER)
        assert found.shape == (3, IDS.shape[1])
        for row, token in zip(found, range(ANSWER[0], ANSWER[1] + 1), strict=True):
            rest = sum(direct.logit_of(part[token - 1], token) for part in direct.added)
            logit = direct.logit_of(direct.last[0][token - 1], token)
            # The norm of transformers rounds to float32.
            torch.testing.assert_close(logit, direct.logits[token - 1, IDS[0, token]], rtol=0, atol=1e-6)
            torch.testing.assert_close(row.sum() + rest, logit, rtol=0, atol=1e-9)
            torch.testing.assert_close(
                row, direct.contributions(token, lambda a, t=token: a[:, t - 1]), rtol=0, atol=1e-9
            )
            assert not row[token:].any()


def test_variants_are_what_their_names_say():
    model = made("qwen2_5_vl")
    with torch.no_grad():
        direct = Direct(model)
        alone = attribution_maps(model, IDS, patches(), GRIDS, reasoning=None, answer=REASONING)
        expected = sum(
            direct.contributions(t, lambda a, t=t: a[:, t - 1]) for t in range(REASONING[0], REASONING[1] + 1)
        )
        for ours, theirs in zip(alone, images_of(expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
        weights = attribution_maps(model, IDS, patches(), GRIDS, reasoning=None, answer=(22, 22), attention_only=True)
        summed = sum(attention[:, 21].sum(0) for attention in direct.attention)
        for ours, theirs in zip(weights, images_of(summed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_the_model_stays_as_it_is():
    model = made("qwen2_5_vl").train()
    before = {name: type(module) for name, module in model.named_modules()}
    attention = model.config.text_config._attn_implementation
    attribution_maps(model, IDS, patches(), GRIDS, reasoning=REASONING, answer=ANSWER)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert model.config.text_config._attn_implementation == attention
    assert model.training


def test_layers_without_attention_rows_are_refused_by_name():
    model = made("qwen2_5_vl")
    model.config.text_config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match=r"qwen2_5_vl: layer 1 is linear_attention"):
        attribution_maps(model, IDS, patches(), GRIDS, reasoning=REASONING, answer=ANSWER)


@pytest.mark.parametrize(("reasoning", "answer"), [((0, 3), (5, 6)), ((17, 20), (24, 22)), ((17, 20), (22, 99))])
def test_a_span_outside_the_sequence_is_refused(reasoning, answer):
    with pytest.raises(ValueError, match="is no span of tokens within"):
        attribution_maps(made("qwen2_5_vl"), IDS, patches(), GRIDS, reasoning=reasoning, answer=answer)


@pytest.fixture(scope="module")
def policy():
    made = FastPolicy(PolicyConfig("tiny", lora=LoRA(rank=4))).double()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return made


@pytest.mark.parametrize("most", [2**24, 1])
def test_responses_that_share_a_padded_prompt_get_the_maps_of_each_alone(policy, most, monkeypatch):
    """SOD and CoSOD prompts side by side, two responses each, one image and three; in one piece and head by head."""
    monkeypatch.setattr("lightning_sal.policy.tracing._MOST_NUMBERS", most)
    scenes = SceneGroups(3, {"sod": 1, "cosod": 1}, size=9)
    groups = [next(scenes[i] for i in range(9) if scenes[i].task == task) for task in ("sod", "cosod")]
    prompts = policy.encode(groups)
    texts = [text for group in groups for text in (group.response, "<think>red ring</think>blue square circle")]
    tokens, mask = policy.encode_responses(texts)
    lengths = mask.sum(1).tolist()
    spans = [[(length - 4, length - 2), (length - 2, length - 2)] for length in lengths]
    spans[3] = []
    reasoning = [(1, length - 7) for length in lengths]
    reasoning[2] = None
    found = policy.attribute(prompts, tokens, mask, spans, reasoning)
    assert [len(each) for each in found] == [2, 2, 2, 0]
    for row, each in enumerate(spans):
        group = groups[row // 2]
        alone = prompts.select([row // 2])
        pixels = policy.processor.image_processor([i.permute(2, 0, 1) for i in group.images], return_tensors="pt")
        ids = torch.cat([alone.ids[0], tokens[row, : lengths[row]]])
        start = alone.ids.shape[1]
        for number, (first, last) in enumerate(each):
            through = reasoning[row] and tuple(start + place for place in reasoning[row])
            expected = attribution_maps(
                policy.model,
                ids,
                pixels["pixel_values"].double(),
                pixels["image_grid_thw"],
                reasoning=through,
                answer=(start + first, start + last),
            )
            assert len(found[row][number]) == len(group.images)
            for ours, theirs in zip(found[row][number], expected, strict=True):
                torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_attributing_leaves_training_as_it_was(policy):
    scenes = SceneGroups(3, {"sod": 1}, size=1)
    prompts = policy.encode([scenes[0]])
    tokens, mask = policy.encode_responses([scenes[0].response])
    policy.train()
    with torch.inference_mode():  # as in validation
        policy.attribute(prompts, tokens, mask, [[(3, 4)]], [(0, 2)])
    assert policy.training
    assert policy.score(prompts, tokens, mask).requires_grad


RUNS = ("main", "noncanonical", "truncated", "small_o")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, which lies beside the project where it is developed")
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-6), (torch.float32, 5e-6)])
def test_maps_equal_those_of_the_public_code(run, dtype, tolerance):
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(SHARED, dtype=dtype).eval()
    if run == "small_o":
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.data.mul_(0.02)
    sample = json.loads((SHARED / "sample.json").read_text())["runs"][run]
    inputs, expected = np.load(SHARED / "inputs.npz"), np.load(SHARED / "expected.npz")
    ids = torch.tensor(sample["prompt_ids"] + sample["completion_ids"])
    right = {**sample, **sample.get("right", {})}
    start = len(sample["prompt_ids"])
    spans = {
        name: tuple(start + place for place in right[key])
        for name, key in (("reasoning", "think_span"), ("answer", "answer_span"))
    }
    pixels = torch.tensor(inputs["pixel_values"]).to(dtype), torch.tensor(inputs["image_grid_thw"])

    def ours(**options):
        return attribution_maps(model, ids, *pixels, **{**spans, **options})[0].numpy()

    flagged = "think_span" in sample.get("right", {})
    names = {
        ("emit", True): "right_emit_sum" if flagged else "ref64_sum",
        ("key", True): "right_key_sum" if flagged else "def_key_sum",
        ("emit", False): "def_emit_noeps_sum",
        ("key", False): "def_key_noeps_sum",
    }
    for (convention, norm_eps), name in names.items():
        if flagged and not norm_eps:
            continue  # those arrays are of the wrong spans
        np.testing.assert_allclose(
            ours(convention=convention, norm_eps=norm_eps), expected[f"{run}__{name}"], rtol=0, atol=tolerance
        )
    if run != "main":
        return
    direct = {"reasoning": None}
    variants = {
        "def_answer_only_noeps_sum": direct,
        "def_answer_only_sum": {**direct, "norm_eps": True},
        "def_think_only_noeps_sum": {**direct, "answer": spans["reasoning"]},
        "def_attention_chain_emit_sum": {"attention_only": True, "convention": "emit"},
        "def_attention_chain_key_sum": {"attention_only": True},
        "def_attention_answer_only_sum": {**direct, "attention_only": True},
        "def_attention_think_only_sum": {**direct, "answer": spans["reasoning"], "attention_only": True},
    }
    for name, options in variants.items():
        wanted = expected[f"{run}__{name}"]
        np.testing.assert_allclose(
            ours(**options), wanted, rtol=0, atol=tolerance * max(1.0, float(np.abs(wanted).max()))
        )
    single = {**direct, "answer": (spans["answer"][0] + 1,) * 2, "norm_eps": True}
    np.testing.assert_allclose(ours(**single), expected[f"{run}__def_answer_only_per_token"][1], rtol=0, atol=tolerance)
