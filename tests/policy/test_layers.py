"""Parts of decoder layers: values of transformers', gradients of the formulas, and what they keep."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import nn

from lightning_sal.policy import layers as layers_file
from lightning_sal.policy import selfcheck
from lightning_sal.policy.backbone import MODEL_TYPES, Backbone, language_model
from lightning_sal.policy.layers import Attention, GatedMLP, GatedProduct, RMSNorm


@pytest.fixture(params=MODEL_TYPES)
def layers(request):
    """A decoder layer of transformers, and ours of the same weights."""
    with torch.no_grad():
        model = selfcheck.small_model(request.param)
    theirs = copy.deepcopy(language_model(model).layers[0])
    Backbone(model)
    return theirs, language_model(model).layers[0]


def inputs(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_gradients_of_a_norm_are_those_of_its_formula():
    norm = RMSNorm(nn.Parameter(inputs(6, seed=1).detach()), 1e-3)
    x = inputs(2, 5, 6)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    assert torch.autograd.gradcheck(
        lambda x, weight: torch.func.functional_call(norm, {"weight": weight}, x), (x, norm.weight)
    )
    norm.weight.requires_grad_(False)  # as under adapters
    (slope,) = torch.autograd.grad(norm(x).sin().sum(), x)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sin().sum(), x)[0])


def test_gradients_of_a_gated_product_are_those_of_its_formula():
    assert torch.autograd.gradcheck(GatedProduct(), (inputs(3, 4), inputs(3, 4, seed=1)))


def test_an_mlp_is_that_of_transformers_and_keeps_its_two_factors_alone(layers, monkeypatch):
    monkeypatch.setattr(layers_file, "_LEAST", 0)
    theirs, ours = (layer.mlp.double() for layer in layers)
    assert isinstance(ours, GatedMLP)
    assert list(dict(ours.named_parameters())) == list(dict(theirs.named_parameters()))
    x = inputs(2, 3, 16)
    expected, found = theirs(x), ours(x)
    torch.testing.assert_close(found, expected)
    weights = list(theirs.parameters()), list(ours.parameters())
    slopes = [torch.autograd.grad(y.sin().sum(), [x, *w]) for y, w in zip((expected, found), weights, strict=True)]
    torch.testing.assert_close(slopes[0], slopes[1])

    def note(_, given, product):
        held.extend(weakref.ref(tensor.untyped_storage()) for tensor in (*given, product))

    held = []
    ours.product.register_forward_hook(note)
    found = ours(x)
    assert [ref() is not None for ref in held] == [True, True, False]
    found.sum().backward()


def test_attention_is_that_of_transformers(layers):
    """Within a whole layer, so that the angles are those that it is given; and gradients flow through the rotation."""
    theirs, ours = (layer.double() for layer in layers)
    assert isinstance(ours.self_attn, Attention)
    theirs.self_attn.config._attn_implementation = "eager"
    close = {"rtol": 1e-5, "atol": 1e-5}  # theirs has norms in float32
    angles = inputs(2, 5, 4, seed=2).detach().repeat(1, 1, 2)
    x = inputs(2, 5, 16)
    mask = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1).expand(2, 1, 5, 5)
    options = {"position_embeddings": (angles.cos(), angles.sin()), "attention_mask": mask}
    expected, found = theirs(x, **options), ours(x, **options)
    torch.testing.assert_close(found, expected, **close)
    weights = list(theirs.parameters()), list(ours.parameters())
    slopes = [torch.autograd.grad(y.sin().sum(), [x, *w]) for y, w in zip((expected, found), weights, strict=True)]
    torch.testing.assert_close(slopes[0], slopes[1], **close)


def test_another_activation_is_refused(layers):
    theirs, _ = layers
    theirs.mlp.config.hidden_act = "gelu"
    with pytest.raises(ValueError, match=r"hidden_act is gelu: use a model with silu"):
        GatedMLP(theirs.mlp)
