"""The general path against the fast one on the same model, and which of them a policy takes."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from jinja2 import TemplateError

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.frames import at_most
from lightning_sal.policy.general.policy import GeneralPolicy, prompt_text
from lightning_sal.policy.general.prompts import can_stand_side_by_side
from lightning_sal.policy.make import make_policy, policy_class, require_attribution
from lightning_sal.samples import Message

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=9)
GROUPS = [SCENES[i] for i in range(5)]


def adapted(path):
    torch.manual_seed(0)
    policy = make_policy(PolicyConfig("tiny", path=path, lora=LoRA(rank=4)))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:  # zero at first: then adapters would do nothing and tests would see nothing
            parameter.data.normal_(std=0.02)
    return policy


@pytest.fixture(scope="module")
def paths():
    return adapted("fast"), adapted("general")


def gradients(policy):
    found = {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}
    policy.zero_grad()
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0, 1.7])
def test_both_paths_sample_the_same_responses(paths, temperature):
    rollouts = [
        policy.sample(
            policy.encode(GROUPS), 60, responses=2, temperature=temperature, generator=torch.Generator().manual_seed(1)
        )
        for policy in paths
    ]
    fast, general = rollouts
    assert fast.texts == general.texts
    assert torch.equal(fast.tokens, general.tokens)
    assert torch.equal(fast.mask, general.mask)
    assert torch.equal(fast.truncated, general.truncated)
    torch.testing.assert_close(general.logp, fast.logp, rtol=0, atol=2e-5)


def test_both_paths_score_alike_with_equal_gradients(paths):
    tokens, mask = paths[0].encode_responses([group.response for group in GROUPS for _ in range(2)])
    found = []
    for policy in paths:
        scores = policy.score_tokens(policy.encode(GROUPS), tokens, mask, 1.3, entropy="gradient")
        (scores.logp.sum() + scores.entropy.sum()).backward()
        found.append((scores, gradients(policy)))
    (ours, ours_grad), (theirs, theirs_grad) = found
    torch.testing.assert_close(theirs.logp, ours.logp, rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs.entropy, ours.entropy, rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs.last, ours.last, rtol=0, atol=1e-4)
    assert ours_grad.keys() == theirs_grad.keys()
    for name, grad in ours_grad.items():
        torch.testing.assert_close(theirs_grad[name], grad, rtol=0, atol=1e-4 * float(grad.abs().max()))


def test_prompts_can_be_taken_apart_and_joined(paths):
    general = paths[1]
    tokens, mask = general.encode_responses([group.response for group in GROUPS])
    with torch.no_grad():
        prompts = general.encode(GROUPS)
        whole = general.score(prompts, tokens, mask)
        apart = [general.score(prompts.select([row]), tokens[[row]], mask[[row]]) for row in range(len(GROUPS))]
        joined = prompts.joined([prompts.select([4, 2]), prompts.select([0])])
        together = general.score(joined, tokens[[4, 2, 0]], mask[[4, 2, 0]])
    torch.testing.assert_close(torch.cat(apart), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(together, whole[[4, 2, 0]], rtol=0, atol=1e-5)


def test_images_go_through_the_processor_once_and_batches_are_those_of_the_processor(paths, monkeypatch):
    general, calls = paths[1], []
    take = type(general.processor.image_processor).__call__
    monkeypatch.setattr(
        type(general.processor.image_processor),
        "__call__",
        lambda processor, images, *rest, **options: (
            calls.append(len(images)) or take(processor, images, *rest, **options)
        ),
    )
    prompts = general.encode(GROUPS)
    rows = [4, 4, 1, 0]
    some = prompts.select(rows)
    assert len(calls) == len(GROUPS)
    anew = replace(some, apart=None)
    assert some.lengths == anew.lengths
    assert some.inputs.keys() == anew.inputs.keys()
    for name, value in anew.inputs.items():
        assert torch.equal(some.inputs[name], value), name


def test_a_processor_that_makes_another_batch_is_asked_anew():
    def odd(text, images=None, **_):  # tells each prompt how many there are
        ids = torch.full((len(text), 2), len(text))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    class Odd:
        tokenizer = SimpleNamespace(bos_token=None, pad_token_id=0)
        __call__ = staticmethod(odd)

    assert not can_stand_side_by_side(Odd(), "a b")


def test_the_models_own_settings_of_sampling_do_not_count_and_stay(paths):
    """Published models state a repetition penalty, with which samples would not be those of the policy."""
    general = paths[1]
    prompts = general.encode(GROUPS[:2])
    expected = general.sample(prompts, 30, temperature=0).tokens
    settings = general.model.generation_config
    settings.repetition_penalty = 5.0
    try:
        assert torch.equal(general.sample(prompts, 30, temperature=0).tokens, expected)
        assert general.model.generation_config is settings
    finally:
        settings.repetition_penalty = None


def test_a_response_grows_as_it_is_sampled_and_both_paths_stream_alike(paths):
    streamed = []
    for policy in paths:
        stream, texts = policy.stream(policy.encode(GROUPS[:1]), 60), []
        while True:
            try:
                texts.append(next(stream))
            except StopIteration as end:
                streamed.append((texts, end.value))
                break
    (texts, fast), (others, general) = streamed
    assert texts == others
    assert len(texts) > 5
    assert all(later.startswith(text) for text, later in pairwise(texts))
    assert fast.texts == general.texts == (texts[-1],)
    assert torch.equal(fast.tokens, general.tokens)


def test_a_stream_that_is_left_ends_what_goes_on_beside_it(paths):
    general = paths[1]
    stream = general.stream(general.encode(GROUPS[:1]), 10_000)
    next(stream)
    stream.close()  # returns once the thread has ended
    assert general.training


def test_a_policy_takes_the_fast_path_where_it_can():
    assert policy_class(PolicyConfig("tiny")) is FastPolicy
    assert policy_class(PolicyConfig("tiny", path="general")) is GeneralPolicy


def test_what_the_general_path_cannot_do_is_refused_by_name(paths, tmp_path):
    config = PolicyConfig("tiny", path="general")
    with pytest.raises(ValueError, match="policy model 'tiny' is a qwen2_5_vl on the general path"):
        require_attribution(config)
    with pytest.raises(ValueError, match="general path"):
        paths[1].require_attribution()
    with pytest.raises(ValueError, match="feature_cache"):
        GeneralPolicy(PolicyConfig("tiny", path="general", feature_cache=str(tmp_path)))


def test_a_prompt_that_is_too_long_is_named_and_not_cut():
    policy = make_policy(PolicyConfig("tiny", path="general", max_prompt_tokens=20))
    with pytest.raises(
        ValueError, match=rf"{GROUPS[0].key}: the prompt has \d+ tokens, more than max_prompt_tokens 20"
    ):
        policy.encode(GROUPS[:1])


def test_a_model_that_takes_one_image_is_named_with_the_sample_that_has_more(paths, monkeypatch):
    general = paths[1]
    several = next(group for group in GROUPS if len(group.images) > 1)
    take = type(general.processor).__call__

    def takes_one(processor, images=None, **options):
        if images and any(len(shown) > 1 for shown in images):
            raise ValueError("only one image a prompt is supported")
        return take(processor, images=images, **options)

    monkeypatch.setattr(type(general.processor), "__call__", takes_one)
    with pytest.raises(
        ValueError, match=rf"{several.key}: a prompt of \d images to Qwen2_5_VLProcessor .* only one image"
    ):
        general.encode([GROUPS[0], several])


def test_targets_that_a_model_lacks_are_named():
    with pytest.raises(ValueError, match="qwen2_5_vl has no layer gate_up_proj; it has q_proj, k_proj"):
        make_policy(PolicyConfig("tiny", lora=LoRA(targets=("q_proj", "gate_up_proj"))))


@pytest.mark.parametrize(
    ("opened", "left"),
    [("<turn>", "<turn>"), ("<turn><think>\n", "<turn>"), ("<turn><think>\n\n</think>\n\n", "<turn>")],
)
def test_reasoning_that_a_template_opens_is_left_to_the_response(opened, left):
    processor = SimpleNamespace(apply_chat_template=lambda *_, **__: opened)
    assert prompt_text(processor, [Message("user", "Hello")]) == left


def test_a_system_turn_goes_before_the_question_where_a_family_has_none():
    def template(turns, **_):
        if turns[0]["role"] == "system":
            raise TemplateError("System role not supported")
        return "|".join(turn["content"][-1]["text"] for turn in turns)

    processor = SimpleNamespace(apply_chat_template=template)
    assert prompt_text(processor, [Message("system", "Be brief."), Message("user", "Who?")]) == "Be brief.\n\nWho?"


def test_an_image_is_made_smaller_in_its_own_shape():
    image = torch.full((60, 90, 3), 7, dtype=torch.uint8)
    small = at_most(image, 1350)
    assert small.shape == (30, 45, 3)
    assert small.unique().tolist() == [7]
    assert at_most(image, 5400) is image
    assert at_most(image, None) is image
