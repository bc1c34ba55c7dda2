"""What is relied on in transformers and peft without their promise: each test says in words what moved when it fails."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import warnings

import pytest
import torch

from lightning_sal.errors import UsageError
from lightning_sal.internals import versions
from lightning_sal.policy import selfcheck
from lightning_sal.policy.adapters import adapters_off
from lightning_sal.policy.attention import Alone
from lightning_sal.policy.backbone import MODEL_TYPES, Backbone, language_model, vision_tower
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.decoding.merging import merged
from lightning_sal.policy.decoding.reading import read_prompts
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.positions import mrope_positions


@pytest.fixture(params=MODEL_TYPES)
def model(request):
    with torch.no_grad():
        return selfcheck.small_model(request.param)


@pytest.fixture
def fresh():
    """Verdicts of earlier tests are forgotten, and those of this one after it."""
    selfcheck.check.cache_clear()
    yield
    selfcheck.check.cache_clear()


def test_the_parts_of_a_model_stand_where_they_are_looked_for(model):
    assert vision_tower(model).blocks is model.model.visual.blocks, "the vision tower or its blocks moved"
    block = vision_tower(model).blocks[0].attn
    assert {"qkv", "proj"} <= dict(block.named_children()).keys(), "a vision block's attention has other layers"
    assert isinstance(block.num_heads, int), "a vision block's attention does not tell its number of heads"
    given = inspect.signature(block.forward).parameters
    assert {"hidden_states", "cu_seqlens", "position_embeddings"} <= given.keys(), (
        "a vision block is given other things"
    )
    layers = language_model(model).layers
    assert [layer.self_attn.layer_idx for layer in layers] == [0, 1], "attention layers do not tell their number"
    assert model.get_output_embeddings() is model.lm_head, "the output layer moved"


def test_norms_are_found_by_their_class(model):
    Backbone(model)
    assert isinstance(language_model(model).norm, torch.nn.RMSNorm), "the RMS norms of transformers have another name"


def test_a_view_reaches_the_attention_of_every_layer(model):
    backbone, reached = Backbone(model), []

    class Noted(Alone):
        def attend(self, layer, query, key, value, scale):
            reached.append(layer)
            return Alone.attend(self, layer, query, key, value, scale)

    positions = torch.arange(5).expand(3, 1, 5)
    backbone.read(torch.randn(1, 5, 16), positions, Noted())
    assert reached == [0, 1], "transformers hands no keyword of the forward pass to its attention functions"


def test_a_model_called_without_a_view_attends_as_it_did(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(Backbone(copy.deepcopy(model)).model(input_ids=ids).logits, expected)


def test_positions_of_images_are_those_of_transformers(model):
    """Against its own function, on prompts with images of unequal sizes, some side by side and some first."""
    prompts = [
        [5, 3, *[1] * 6, 4, 6, 3, *[1] * 2, 4, 3, *[1] * 4, 4, 7, 8],
        [3, *[1] * 4, 4, 9, 10, 11],
        [5, 6, 7],
    ]
    grids = torch.tensor([[1, 4, 6], [1, 2, 4], [1, 4, 4], [1, 8, 2]])
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    ours = mrope_positions(ids == 1, [len(prompt) for prompt in prompts], grids, merge=2)
    theirs, _ = model.model.get_rope_index(ids, (ids == 1).int(), image_grid_thw=grids, attention_mask=(ids > 0).long())
    assert torch.equal(ours[:, ids > 0], theirs[:, ids > 0])


def test_positions_by_hand():
    """Two words, an image of 2 x 3 visual tokens, a word: the word after it follows the image's widest side."""
    visual = torch.tensor([[False, False, *[True] * 6, False]])
    found = mrope_positions(visual, [9], torch.tensor([[1, 4, 6]]), merge=2)
    assert found[:, 0].tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5],
        [0, 1, 2, 2, 2, 3, 3, 3, 5],
        [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ]


def moved(backbone, prompts, *rest):
    return backbone, dataclasses.replace(prompts, positions=prompts.positions + 1), *rest


@pytest.mark.parametrize(
    ("part", "changed", "message"),
    [
        ("mrope_positions", lambda *a: mrope_positions(*a).clamp(max=6), "positions"),
        ("read_prompts", lambda *a: read_prompts(*moved(*a)), "a decoding step, a decoding step of merged weights"),
    ],
)
def test_a_model_that_computes_something_else_is_refused_in_one_line(part, changed, message, fresh, monkeypatch):
    """As if transformers had moved them: what the two sides do is compared, whichever side it is that changed."""
    monkeypatch.setattr(selfcheck, part, changed)
    with pytest.raises(UsageError, match=message) as caught:
        FastPolicy(PolicyConfig("tiny-scratch"))
    assert "install transformers" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_that_is_gone_is_refused_in_one_line(fresh, monkeypatch):
    monkeypatch.setattr("lightning_sal.policy.backbone.vision_tower", lambda model: model.model.vision_model)
    with pytest.raises(UsageError, match=r"qwen2_5_vl .*vision_model.*: install transformers"):
        selfcheck.check("qwen2_5_vl")


def test_the_check_leaves_the_random_numbers_as_they_were(fresh):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for kind in MODEL_TYPES:
        selfcheck.check(kind)
    assert torch.equal(torch.rand(2), expected)


def test_a_version_outside_the_tested_range_is_told_once(monkeypatch):
    versions.warn_untested.cache_clear()
    monkeypatch.setattr("lightning_sal.internals.versions.metadata.version", lambda library: "0.1")
    with pytest.warns(UserWarning, match=r"peft 0\.1 was not tested with lightning-sal, peft.* was") as told:
        versions.warn_untested("peft")
    assert len(told) == 1
    monkeypatch.undo()
    versions.warn_untested.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.warn_untested("transformers", "peft", "lightning", "jsonargparse", "torch")
    assert versions.tested_range("transformers").startswith("transformers")


def test_what_peft_adds_is_what_its_own_merge_adds():
    policy = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=2)))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    layer = policy.backbone.language_model.layers[0].mlp.down_proj
    ours, _ = merged(layer)
    assert not torch.allclose(ours, layer.base_layer.weight)
    states = torch.randn(3, layer.base_layer.in_features)
    torch.testing.assert_close(
        layer(states), states @ ours.T, msg=lambda text: f"peft scales adapters otherwise: {text}"
    )
    with adapters_off(policy):
        torch.testing.assert_close(layer(states), layer.base_layer(states))
        torch.testing.assert_close(merged(layer)[0], layer.base_layer.weight)
    torch.testing.assert_close(layer(states), states @ ours.T)
