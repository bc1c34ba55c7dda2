"""The vLLM sampler against a server on loopback that plays vLLM by a policy of its own and knows only what it is told."""

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_sal.modules import GRPO
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.images import resized
from lightning_sal.policy.loading import load_processor
from lightning_sal.samplers import Sampler, VLLMSampler
from lightning_sal.samplers.vllm.command import serve_command
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
from tests.modules.parts import POLICY
from tests.modules.test_rl import G, close, made, step
from tests.samplers.parts import GROUPS, SIZES, TOKENS, asked, error, photographs, sample, stir
from tests.samplers.server import choice, often_ending, serving

CAP = 1.2


def test_log_probabilities_are_the_policys_where_the_server_has_its_adapters_pictures_and_words(policy, tmp_path):
    with serving() as server:
        prompts, rollout = sample(VLLMSampler(str(tmp_path), server.url), stir(policy, 1))
    assert error(policy, prompts, rollout) < 1e-4
    lengths = rollout.mask.sum(1)
    last = rollout.tokens.gather(1, lengths[:, None] - 1)[:, 0]
    ended = torch.isin(last, torch.tensor(policy.eos_ids))
    assert ended.any()
    assert not ended.all()
    assert torch.equal(rollout.truncated, ~ended)
    assert (lengths[~ended] == TOKENS).all()
    assert len(set(rollout.texts)) > len(GROUPS)


def test_requests_leave_nothing_to_the_servers_defaults(policy, tmp_path):
    with serving() as server:
        sample(VLLMSampler(str(tmp_path), server.url), policy)
    probe, *questions = asked(server, "/v1/chat/completions")
    plain = {
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": True,
        "return_token_ids": True,
    }
    assert all(question | plain == question for question in (probe, *questions))
    assert len(questions) == len(GROUPS)
    suppressed = {str(token): -100.0 for token in policy.suppressed.nonzero().flatten().tolist()}
    for question in questions:
        assert question["logit_bias"] == suppressed
        assert set(question["stop_token_ids"]) == set(policy.eos_ids)
        assert "mm_processor_kwargs" not in question  # which vLLM refuses unless it is told to trust whoever asks


TINY = str(EMBEDDED_POLICIES["tiny"])


@pytest.mark.parametrize("size", SIZES)
def test_an_image_is_sent_as_the_policys_processor_resizes_it(size):
    """The processor makes the same of both, to the last bit, and so does one of other limits, as a server may have."""
    own = load_processor(TINY, PolicyConfig("tiny", min_pixels=4 * 784, max_pixels=64 * 784)).image_processor
    other = load_processor(TINY, PolicyConfig("tiny", min_pixels=784, max_pixels=10**7)).image_processor
    image = torch.randint(256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    sent = resized(image, own)
    assert sent.dtype == torch.uint8
    assert 4 * 784 <= sent.shape[0] * sent.shape[1] <= 64 * 784
    wanted = own(image.permute(2, 0, 1), return_tensors="pt")
    for processor in (own, other):
        found = processor(sent.permute(2, 0, 1), return_tensors="pt")
        assert (found["image_grid_thw"][0, 1:] * 14).tolist() == [*sent.shape[:2]]
        assert torch.equal(found["pixel_values"], wanted["pixel_values"])


def test_photographs_are_the_same_to_a_server_of_other_limits(tmp_path):
    limited = replace(POLICY, model="tiny", min_pixels=4 * 784, max_pixels=12 * 784)
    policy, wide = (often_ending(FastPolicy(replace(limited, max_pixels=most))) for most in (12 * 784, 10**6))
    groups = photographs(*SIZES[:4])
    with serving(policy=wide) as server:
        found = sample(VLLMSampler(str(tmp_path), server.url), stir(policy, 1), groups=groups)
    assert error(policy, *found) < 1e-4


def test_what_a_server_would_resize_again_is_refused(policy, tmp_path):
    """The embedded policies take one number of pixels, which few sizes but 112 x 112 have."""
    with (
        serving() as server,
        pytest.raises(ValueError, match=r"^photographs: an image of 80 x 100 pixels has") as caught,
    ):
        sample(VLLMSampler(str(tmp_path), server.url), policy, groups=photographs((112, 112), (100, 80)))
    assert "\n" not in str(caught.value)


def test_at_temperature_0_one_response_is_asked_and_stands_for_all(policy, tmp_path):
    with serving() as server:
        prompts = policy.encode(GROUPS)
        found, own = (
            of(prompts, max_new_tokens=TOKENS, responses=G, temperature=0.0, generator=torch.Generator()).tokens
            for of in (partial(VLLMSampler(str(tmp_path), server.url).sample, policy, GROUPS), policy.sample)
        )
    assert found.equal(own)


def test_the_command_states_the_limits_of_the_policy(policy):
    limited = FastPolicy(replace(POLICY, model="tiny", min_pixels=784, max_pixels=12544, max_prompt_tokens=500))
    command = serve_command(limited, 2, 12)
    assert "--max-model-len 512" in command
    assert """--mm-processor-kwargs '{"size": {"shortest_edge": 784, "longest_edge": 12544}}'""" in command
    assert "--mm-processor-kwargs" not in serve_command(policy, 2, 12)


def test_responses_follow_from_the_generator(policy, tmp_path):
    with serving() as server:
        sampler = VLLMSampler(str(tmp_path), server.url, connections=1)
        one, same, other = (sample(sampler, policy, seed)[1].texts for seed in (1, 1, 2))
    assert one == same
    assert one != other


class Replay:
    """Another sampler's responses, as the policy's own."""

    exact = True

    def __init__(self, rollout):
        self.rollout = rollout

    def sample(self, *_, **__):
        return self.rollout


def grpo(sampler) -> Any:
    module = made(GRPO, beta=0.0, sampler=sampler, sampler_ratio_cap=CAP)
    module.configure_model()
    often_ending(module.policy)
    return module


def test_where_the_server_agrees_the_gradient_is_that_of_own_samples(tmp_path):
    with serving() as server:
        keep = step(grpo(VLLMSampler(str(tmp_path / "adapters"), server.url)), tmp_path)
    own = step(grpo(Replay(keep.record.rollout)), tmp_path)
    close(keep.gradients[0], own.gradients[0], 1e-3)
    for name in ("mean", "min", "max"):
        assert keep.logged[f"train/sampler_ratio/{name}"] == pytest.approx(1, abs=1e-4)


def test_where_it_differs_each_token_weighs_the_capped_ratio(tmp_path):
    """Its log-probabilities are up to 0.3 off, up or down by the token, so ratios lie on both sides of the cap."""
    with serving(drift=lambda ids: 0.3 * (ids % 3 - 1)) as server:
        module = grpo(VLLMSampler(str(tmp_path / "adapters"), server.url))
        keep = step(module, tmp_path)
    record: Any = keep.record
    rollout, advantage = record.rollout, record.advantages
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in keep.start:
                parameter.copy_(keep.start[name])
    module.zero_grad()
    logp = module.policy.score(module.policy.encode(record.groups), rollout.tokens, rollout.mask)
    ratio = (logp.detach() - rollout.logp).exp()
    assert ratio[rollout.mask].max() > CAP
    assert ratio[rollout.mask].min() < 0.9
    weight = torch.minimum(ratio, torch.tensor(CAP))
    per_response = (weight * -advantage[:, None] * logp * rollout.mask).sum(1) / rollout.mask.sum(1)
    per_response.mean().backward()
    close(keep.gradients[0], {n: p.grad for n, p in module.named_parameters() if p.requires_grad}, 1e-3)
    told = ratio[rollout.mask]
    for name, value in (("mean", told.mean()), ("min", told.min()), ("max", told.max())):
        assert keep.logged[f"train/sampler_ratio/{name}"] == pytest.approx(float(value), rel=1e-4)


def first(**changes):
    """Spoils the first response."""
    return lambda answer: {**answer, "choices": [*answer["choices"][:-1], answer["choices"][-1] | changes]}


def prompt(change):
    return lambda answer: answer | {"prompt_token_ids": change(answer["prompt_token_ids"])}


FAULTS = {
    "runtime updating is off": (
        {"refuse": lambda path: (404, {"detail": "Not Found"}) if "lora" in path else None},
        "load_lora_adapter answered 404",
    ),
    "untrusted arguments": (
        {
            "refuse": lambda path: (
                (400, {"error": {"message": "Per-request x are disabled"}}) if "chat" in path else None
            )
        },
        "answered 400 .*Per-request x are disabled",
    ),
    "an error": (
        {"refuse": lambda path: (500, b"CUDA error:\nout of memory") if "chat" in path else None},
        "answered 500 CUDA error: out of memory",
    ),
    "no JSON": ({"refuse": lambda path: (200, b"<html>") if "chat" in path else None}, "no JSON object"),
    "raw log-probabilities": ({"certainty": -3.0}, "log-probability -3.000, not 0"),
    "another resize": ({"spoil": prompt(lambda ids: [*ids, ids[-1]])}, "from token"),
    "another template": ({"spoil": prompt(lambda ids: [ids[0], ids[1] + 1, *ids[2:]])}, "other from token 1 on"),
    "a folder it does not see": (
        {"sees": lambda path: False},
        "it finds no adapters at .* it must see that folder at the same path",
    ),
    "an old server": ({"spoil": prompt(lambda ids: None)}, "no prompt_token_ids"),
    "a response too few": ({"spoil": lambda answer: answer | {"choices": answer["choices"][1:]}}, f"{G - 1} responses"),
    "no log-probabilities": ({"spoil": first(logprobs=None)}, "0 log-probabilities"),
    "an unknown log-probability": ({"spoil": first(**choice([1] * TOKENS, [-9999.0] * TOKENS))}, "0 log-probabilities"),
    "logits": ({"spoil": first(**choice([1] * TOKENS, [3.0] * TOKENS))}, "0 log-probabilities"),
    "a short context": ({"spoil": first(**choice([1, 2], [-1.0] * 2, reason="length"))}, "finish_reason is length"),
    "a suppressed id": ({"spoil": first(**choice([415] * TOKENS, [-1.0] * TOKENS))}, "suppresses"),
    "an id too many": ({"spoil": first(**choice([428] * TOKENS, [-1.0] * TOKENS))}, "suppresses"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_server_does_wrong_is_said_in_one_line(fault, policy, tmp_path):
    behaviour, words = FAULTS[fault]
    with serving(**behaviour) as server, pytest.raises(ConnectionError, match=words) as caught:
        sample(VLLMSampler(str(tmp_path), server.url), policy)
    line = str(caught.value)
    assert "\n" not in line
    assert server.url in line
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve tiny-scratch" in line
    assert "--max-lora-rank 8" in line  # the least that holds rank 4
    assert '{"image": 3, "video": 0}' in line
    assert "--max-model-len 2048" in line  # the model's own positions, fewer than max_prompt_tokens
    if fault in ("runtime updating is off", "raw log-probabilities"):
        assert not list(tmp_path.iterdir())


def test_a_server_that_hangs_is_given_up(policy, tmp_path):
    closing = threading.Event()
    refuse = lambda path: closing.wait(20) and None if "chat" in path else None  # noqa: E731
    with serving(refuse=refuse) as server:
        with pytest.raises(ConnectionError, match=r"no answer in 0\.5 s, raise timeout_s"):
            sample(VLLMSampler(str(tmp_path), server.url, timeout_s=0.5), policy)
        closing.set()


def test_a_server_that_is_not_there_is_named_with_its_command(policy, tmp_path):
    with serving() as server:
        pass
    with pytest.raises(ConnectionError, match=r"Connection refused.*vllm serve"):
        sample(VLLMSampler(str(tmp_path), server.url), policy)


def test_a_policy_without_adapters_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"give model\.policy\.lora"):
        sample(VLLMSampler(str(tmp_path)), FastPolicy(PolicyConfig("tiny-scratch")))


def test_yaml_can_name_it(tmp_path):
    parser = ArgumentParser()
    parser.add_argument("--sampler", type=Sampler)
    made = {"class_path": "lightning_sal.samplers.VLLMSampler", "init_args": {"adapters": str(tmp_path)}}
    sampler = parser.instantiate(parser.parse_object({"sampler": made})).sampler
    assert isinstance(sampler, VLLMSampler)
    assert sampler.adapters == tmp_path
