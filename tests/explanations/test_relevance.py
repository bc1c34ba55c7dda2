"""AttnLRP against relevance that is propagated by hand, rule by rule, in float64; and what its conservation is."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.explanations.relevance import Halved, halved, relevance_rules
from lightning_sal.policy.attention import Alone
from lightning_sal.policy.backbone import MODEL_TYPES, Backbone
from lightning_sal.policy.selfcheck import small_model

SIZE, TOKEN = 7, 5


@pytest.fixture(params=MODEL_TYPES)
def backbone(request):
    with torch.no_grad():
        model = small_model(request.param).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.model.language_model.named_parameters():  # biases and gains that matter
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        elif "proj" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return Backbone(model)


@pytest.fixture
def embeds(backbone):
    shape = (1, SIZE, backbone.text_config.hidden_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def logit(backbone, embeds, view):
    positions = torch.arange(SIZE).expand(3, 1, -1)
    hidden = backbone.read(embeds, positions, view)
    return hidden[0, -1] @ backbone.rows(torch.tensor(TOKEN))


class ByHand:
    """Relevance through the decoder, without a gradient: each rule as it is written, R_in of R_out."""

    def __init__(self, backbone):
        self.text, self.backbone, self.lost = backbone.language_model, backbone, 0.0

    def linear(self, layer, given, relevance):
        out = layer(given)
        if layer.bias is not None:
            self.lost += (layer.bias * relevance / out).sum()
        return given * ((relevance / out) @ layer.weight)

    def norm(self, norm, states):
        return states * (states.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight

    def rotated(self, states, back=False):
        """(H, S, D) turned by the place of each token, as all three positions are alike; `back` is the transpose."""
        angle = (torch.arange(SIZE)[:, None] * self.text.rotary_emb.inv_freq.float()).repeat(1, 2)
        cos, sin = angle.cos().double(), angle.sin().double()  # transformers has them in float32
        one, two = states.chunk(2, -1)
        return states * cos + torch.cat([-two, one], -1) * sin * (-1 if back else 1)

    def attention(self, layer, normed):
        """What each part of attention is, by name."""
        own, width = layer.self_attn, layer.self_attn.head_dim
        parts = {}
        for name, project in (("q", own.q_proj), ("k", own.k_proj), ("v", own.v_proj)):
            flat = project(normed)
            heads = flat.unflatten(1, (-1, width)).transpose(0, 1)
            if name != "v":
                before = heads
                norm = getattr(own, f"{name}_norm")  # Qwen2.5-VL has none
                heads = heads if isinstance(norm, torch.nn.Identity) else self.norm(norm, heads)
                parts |= {f"{name}_before": before, f"{name}_normed": heads}
                heads = self.rotated(heads)
            parts[name] = heads
        shared = len(parts["q"]) // len(parts["k"])
        keys, values = (parts[name].repeat_interleave(shared, 0) for name in "kv")
        scores = parts["q"] @ keys.transpose(1, 2) * width**-0.5
        weights = scores.masked_fill(torch.ones(SIZE, SIZE).triu(1).bool(), float("-inf")).softmax(-1)
        return parts | {
            "shared": shared, "keys": keys, "values": values, "scores": scores, "weights": weights,
            "seen": weights @ values, "scale": width**-0.5,
        }  # fmt: skip

    def through_attention(self, layer, normed, relevance):
        """Relevance of what its heads saw -> of the normed states."""
        parts, own = self.attention(layer, normed), layer.self_attn
        ratio = relevance.unflatten(1, (-1, own.head_dim)).transpose(0, 1) / parts["seen"]
        of_weights = parts["weights"] * (ratio @ parts["values"].transpose(1, 2)) / 2
        of_values = parts["values"] * (parts["weights"].transpose(1, 2) @ ratio) / 2
        allowed = torch.ones(SIZE, SIZE).tril().bool()
        of_scores = parts["scores"] * (of_weights - parts["weights"] * of_weights.sum(-1, keepdim=True))
        of_scores = torch.where(allowed, of_scores, 0.0)
        self.lost += of_weights.sum() - of_scores.sum()
        each = of_scores / parts["scores"] * parts["scale"]
        of_queries = parts["q"] * (each @ parts["keys"]) / 2
        of_keys = parts["keys"] * (each.transpose(1, 2) @ parts["q"]) / 2
        total = self.heads(own.v_proj, normed, of_values.unflatten(0, (-1, parts["shared"])).sum(1))
        of_keys = of_keys.unflatten(0, (-1, parts["shared"])).sum(1)
        for name, found, project in (("q", of_queries, own.q_proj), ("k", of_keys, own.k_proj)):
            found = parts[f"{name}_normed"] * self.rotated(found / parts[name], back=True)
            total = total + self.heads(project, normed, found)  # the norm of queries and keys passes it on
        return total

    def heads(self, project, normed, relevance):
        return self.linear(project, normed, relevance.transpose(0, 1).flatten(1))

    def run(self, embeds, last_relevance):
        """Relevance (S, C) of the embeddings of that of the last states."""
        steps, states = [], embeds[0]
        for layer in self.text.layers:
            first = self.norm(layer.input_layernorm, states)
            seen = self.attention(layer, first)["seen"].transpose(0, 1).flatten(1)
            between = states + layer.self_attn.o_proj(seen)
            second = self.norm(layer.post_attention_layernorm, between)
            gate, up = layer.mlp.gate_proj(second), layer.mlp.up_proj(second)
            product = gate * gate.sigmoid() * up
            after = between + layer.mlp.down_proj(product)
            steps.append((layer, states, first, seen, between, second, product, after))
            states = after
        relevance = last_relevance(self.norm(self.text.norm, states))
        for layer, states, first, seen, between, second, product, after in reversed(steps):
            of_mlp = self.linear(layer.mlp.down_proj, product, (after - between) * relevance / after)
            of_second = sum(self.linear(part, second, of_mlp / 2) for part in (layer.mlp.gate_proj, layer.mlp.up_proj))
            relevance = between * relevance / after + of_second
            of_seen = self.linear(layer.self_attn.o_proj, seen, (between - states) * relevance / between)
            relevance = states * relevance / between + self.through_attention(layer, first, of_seen)
        return relevance


def test_relevance_is_that_of_the_rules_and_conserved_but_for_biases_and_softmax(backbone, embeds):
    plain = logit(backbone, embeds, Alone())
    embeds.requires_grad_()
    with relevance_rules(backbone):
        ruled = logit(backbone, embeds, Halved(Alone()))
        (slope,) = torch.autograd.grad(ruled, embeds)
    torch.testing.assert_close(ruled, plain, atol=1e-12, rtol=0)  # values stay as they are
    found = (slope * embeds)[0].detach()

    by_hand = ByHand(backbone)
    row = backbone.rows(torch.tensor(TOKEN))

    def of_last(normed):
        relevance = torch.zeros_like(normed)
        relevance[-1] = normed[-1] * row
        return relevance

    with torch.no_grad():
        expected = by_hand.run(embeds, of_last)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found.sum() + by_hand.lost, plain, atol=1e-9, rtol=0)
    assert by_hand.lost.abs() > 1e-3  # that it is not all conserved is seen here


def test_nothing_of_the_rules_stays(backbone, embeds):
    embeds.requires_grad_()
    before = torch.autograd.grad(logit(backbone, embeds, Alone()), embeds)[0]
    with relevance_rules(backbone):
        inside = torch.autograd.grad(logit(backbone, embeds, Alone()), embeds)[0]
    after = torch.autograd.grad(logit(backbone, embeds, Alone()), embeds)[0]
    assert torch.equal(before, after)
    assert (before - inside).abs().max() > 1e-3


def test_half_the_gradient_passes():
    values = torch.tensor([3.0, -0.1], requires_grad=True)
    assert torch.equal(halved(values), values)
    assert torch.autograd.grad(halved(values).sum(), values)[0].tolist() == [0.5, 0.5]
