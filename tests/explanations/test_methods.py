"""Methods of explanation against their formulas, computed the long way in float64 on the embedded policy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch

from lightning_sal.explanations.activations import rank_gaussian, without
from lightning_sal.explanations.methods import METHODS
from lightning_sal.explanations.rollout import AttentionRollout
from lightning_sal.policy.backbone import language_model, replace_norms
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.loading import load_model
from lightning_sal.tasks import task_of
from tests.explanations.parts import cases, policy

CASES = range(4)


@pytest.fixture(params=CASES)
def case(request):
    return cases()[request.param]


@cache
def stock():
    """The language model as transformers has it, but for norms, which it rounds to float32."""
    model, _, _ = load_model(PolicyConfig("tiny"))
    replace_norms(model)
    text = language_model(model.double())
    text.config._attn_implementation = "eager"
    return text


def eager(case):
    """(layers, heads, S, S) attention, (layers + 1, S, C) hidden states as transformers gives them with eager attention."""
    with policy().reading(case.prompts, case.tokens, case.mask) as reading:
        given = {"inputs_embeds": reading["embeds"], "position_ids": reading["positions"], "attention_mask": None}
    # in float64, where transformers rounds to float32
    with mock.patch("torch.nn.functional.softmax", lambda scores, dim, dtype=None: scores.softmax(dim)):
        out = stock()(**given, use_cache=False, output_attentions=True, output_hidden_states=True)
    return torch.stack(out.attentions)[:, 0], torch.stack(out.hidden_states)[:, 0]


def spread(case, values):
    """(N,) values cut into images by the 4 x 4 visual tokens that each has."""
    return [part.view(4, 4).float() for part in values.split(16)]


def assert_maps(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=2e-6, rtol=2e-6)


def predicting(case, span):
    """The places before the tokens of a span."""
    return [case.length + at - 1 for at in range(span[0], span[1] + 1)]


def test_labels_and_reasoning_are_those_of_the_answer(case):
    pieces, answer = policy().pieces(case.tokens[0].tolist()), task_of(case.group).parse(case.text)
    texts = [b"".join(pieces[first : last + 1]).decode().strip() for first, last in (*case.labels, case.reasoning)]
    assert texts[-1] == answer.reasoning
    assert all(label.endswith(text) for label, text in zip(answer.labels, texts[:-1], strict=True))


@torch.no_grad()
def test_rollout_is_the_product_of_whole_matrices(case):
    attention, _ = eager(case)
    product = torch.eye(attention.shape[-1], dtype=torch.float64)
    for layer in attention:
        product = 0.5 * (layer.mean(0) + torch.eye(len(product))) @ product
    torch.testing.assert_close(product.sum(1), torch.ones(len(product), dtype=torch.float64))  # a way for all of it
    expected = [spread(case, product[predicting(case, span)][:, case.visual].sum(0)) for span in case.labels]
    assert_maps(METHODS["rollout"].maps(case), expected)


@torch.no_grad()
def test_raw_attention_is_the_sum_over_layers_and_heads(case):
    attention = eager(case)[0].sum((0, 1))
    expected = [spread(case, attention[predicting(case, span)][:, case.visual].sum(0)) for span in case.labels]
    assert_maps(METHODS["attention"].maps(case), expected)


@torch.no_grad()
def test_cam_is_the_logit_that_visual_tokens_give_to_the_label(case):
    logits = policy().backbone.head(eager(case)[1][-1])  # behind the last norm
    expected = [
        spread(case, sum(logits[case.visual, token] for token in case.ids(span).tolist())) for span in case.labels
    ]
    assert_maps(METHODS["cam"].maps(case), expected)


def label_logit(case, embeds, span):
    """By transformers' own forward pass of the language model."""
    with policy().reading(case.prompts, case.tokens, case.mask) as reading:
        hidden = policy().backbone.read(embeds, reading["positions"], reading["sees"])
    logits = policy().backbone.head(hidden)[0]
    pairs = zip(predicting(case, span), case.ids(span).tolist(), strict=True)
    return sum(logits[place, token] for place, token in pairs)


def test_gradient_times_input_by_autograd(case):
    with policy().reading(case.prompts, case.tokens, case.mask) as reading:
        embeds = reading["embeds"].detach().requires_grad_()
    expected = []
    for span in case.labels:
        (slope,) = torch.autograd.grad(label_logit(case, embeds, span), embeds)
        expected.append(spread(case, (slope * embeds).detach()[0, case.visual].sum(1)))
    assert_maps(METHODS["gradient-x-input"].maps(case), expected)


def test_grad_cam_weighs_channels_by_what_a_shift_of_all_visual_tokens_does(case):
    states = eager(case)[1][1]  # before layer 1 of 3
    expected = []
    for span in case.labels:
        shift = torch.zeros(states.shape[1], dtype=torch.float64, requires_grad=True)

        def shifted(hidden, shift=shift):
            return hidden.index_add(1, case.visual, shift.expand(1, len(case.visual), -1))

        with policy().reading(case.prompts, case.tokens, case.mask) as reading:
            embeds = reading["embeds"]
        with policy().backbone.before_layer(1, shifted):
            (slope,) = torch.autograd.grad(label_logit(case, embeds, span), shift)
        means = slope / len(case.visual)
        expected.append(spread(case, (states[case.visual] @ means).clamp(min=0).detach()))
    assert max(map.max() for maps in expected for map in maps) > 0
    assert_maps(METHODS["grad-cam"].maps(case), expected)


def test_what_earlier_tokens_explain_is_taken_out_of_an_activation():
    activation, interference = torch.tensor([4.0, 1.0, 3.0]), torch.tensor([2.0, 2.0, 0.0])
    # s = (8 + 2) / (4 + 4) = 1.25; 4 - 2.5, 1 - 2.5 -> 0, 3
    assert without(activation, interference).tolist() == [1.5, 0.0, 3.0]
    assert torch.equal(without(activation, 7 * interference), without(activation, interference))
    assert torch.equal(without(activation, torch.zeros(3)), activation)


def test_the_rank_gaussian_filter_by_hand():
    map = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    padded = np.pad(map.numpy(), 1, mode="reflect")
    for row, column in ((0, 0), (2, 3), (3, 4)):
        window = np.sort(padded[row : row + 3, column : column + 3].ravel())
        spread_of = window.std() / window.mean()
        weights = [np.exp(-((k - 4) ** 2) / (2 * spread_of**2)) for k in range(9)]
        expected = np.average(window, weights=weights)
        torch.testing.assert_close(rank_gaussian(map)[row, column].item(), expected)
    assert torch.equal(rank_gaussian(torch.full((3, 3), 2.0)), torch.full((3, 3), 2.0))
    assert torch.equal(rank_gaussian(torch.zeros(1, 2)), torch.zeros(1, 2))


@torch.no_grad()
def test_tam_by_its_formula():
    case = next(each for each in cases() if len(each.group.images) > 1)
    hidden = eager(case)[1][-1]
    ids = [*case.prompts.ids[0].tolist(), *case.tokens[0].tolist()]
    special, visual = set(policy().processor.tokenizer.all_special_ids), case.visual.tolist()
    rows = policy().backbone.rows(torch.tensor(ids))

    def activation(token):
        return (hidden[visual] @ rows[token]).clamp(min=0)

    expected = []
    for first, last in case.labels:
        total = [0.0] * len(case.group.images)
        for token in range(case.length + first, case.length + last + 1):
            earlier = [i for i in range(visual[0] + 1, token) if ids[i] not in special and ids[i] != ids[token]]
            relevance = torch.stack([(hidden[i] @ rows[token]).clamp(min=0) for i in earlier])
            mixed = sum(r * activation(i) for r, i in zip(relevance, earlier, strict=True)) / relevance.sum()
            fit = torch.linalg.lstsq(mixed[:, None], activation(token)[:, None]).solution.item()
            left = (activation(token) - fit * mixed).clamp(min=0)
            for image, part in enumerate(left.split(16)):
                total[image] = total[image] + rank_gaussian(part.view(4, 4))
        expected.append([part.float() for part in total])
    assert_maps(METHODS["tam"].maps(case), expected)


def test_chance_is_the_same_for_the_same_seed_sample_and_response(case):
    found = METHODS["random"].maps(case)
    assert_maps(found, METHODS["random"].maps(replace(case)))
    assert not torch.equal(found[0][0], METHODS["random"].maps(replace(case, seed=1))[0][0])
    assert not torch.equal(found[0][0], METHODS["random"].maps(replace(case, text="other"))[0][0])


def test_every_method_gives_a_finite_map_of_each_image_for_each_label(case):
    before = policy().model.training, policy().backbone.text_config._attn_implementation
    for method in METHODS.values():
        maps = method.maps(case)
        assert len(maps) == len(case.labels)
        for each in maps:
            assert [tuple(map.shape) for map in each] == [(4, 4)] * len(case.group.images)
            assert all(map.isfinite().all() and map.dtype == torch.float32 for map in each)
    assert before == (policy().model.training, policy().backbone.text_config._attn_implementation)


def test_the_direct_attribution_and_the_one_of_the_reasoning_are_those_of_the_policy(case):
    tokens, mask = case.tokens, case.mask
    (through,) = policy().attribute(case.prompts, tokens, mask, [case.labels], [case.reasoning])
    (direct,) = policy().attribute(case.prompts, tokens, mask, [case.labels], [None])
    ((alone,),) = policy().attribute(case.prompts, tokens, mask, [[case.reasoning]], [None])
    assert_maps(METHODS["attribution"].maps(case), through)
    assert_maps(METHODS["attribution-answer"].maps(case), direct)
    assert_maps(METHODS["attribution-reasoning"].maps(case), [alone] * len(case.labels))


def test_what_a_method_cannot_do_is_one_line(monkeypatch):
    monkeypatch.setattr("lightning_sal.explanations.rollout.LONGEST", 10)
    with pytest.raises(ValueError, match=r"^rollout: .* tokens, more than 10, and whole attention matrices are needed"):
        AttentionRollout("rollout").maps(cases()[0])
    with pytest.raises(ValueError, match="is answered without reasoning: leave this method out"):
        METHODS["attribution-reasoning"].maps(replace(cases()[0], reasoning=None))
