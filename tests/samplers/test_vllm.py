"""The vLLM sampler against a server on loopback that plays vLLM by a policy of its own and knows only what it is told."""

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.modules import GRPO
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.loading import load_processor
from lightning_sal.policy.policy import Policy
from lightning_sal.samplers import Sampler, VLLMSampler
from lightning_sal.samplers.vllm.adapters import adapter_weights, fingerprint, save
from lightning_sal.samplers.vllm.command import serve_command
from lightning_sal.samplers.vllm.pictures import resized
from lightning_sal.samples import ImageGroup
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
from tests.modules.parts import POLICY
from tests.modules.test_rl import G, close, made, step
from tests.samplers.server import AWAY, choice, often_ending, serving

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=3)
GROUPS = [SCENES[i] for i in range(3)]  # one and several images
TEMPERATURE, TOKENS = 1.5, 8
CAP = 1.2


def stir(policy, seed):
    """Adapters that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


@pytest.fixture(scope="module")
def policy():
    return often_ending(Policy(POLICY))


def sample(sampler, policy, seed=1, groups=GROUPS):
    prompts = policy.encode(groups)
    rollout = sampler.sample(
        policy,
        groups,
        prompts,
        max_new_tokens=TOKENS,
        responses=G,
        temperature=TEMPERATURE,
        generator=torch.Generator().manual_seed(seed),
    )
    return prompts, rollout


def asked(server, path):
    return [question for at, question in server.asked if at == path]


def test_log_probabilities_are_the_policys_where_the_server_has_its_adapters_pictures_and_words(policy, tmp_path):
    with serving() as server:
        prompts, rollout = sample(VLLMSampler(str(tmp_path), server.url), stir(policy, 1))
    logp = policy.score(prompts, rollout.tokens, rollout.mask, TEMPERATURE)
    torch.testing.assert_close(rollout.logp, logp.detach(), atol=1e-4, rtol=0)
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
SIZES = [(112, 112), (84, 140), (100, 80), (480, 640), (33, 500), (28, 28)]  # height and width


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


def photographs(*sizes):
    generator = torch.Generator().manual_seed(2)
    images = tuple(torch.randint(256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes)
    return [ImageGroup("photographs", "cosod", images)]


def test_photographs_are_the_same_to_a_server_of_other_limits(tmp_path):
    limited = replace(POLICY, model="tiny", min_pixels=4 * 784, max_pixels=12 * 784)
    policy, wide = (often_ending(Policy(replace(limited, max_pixels=most))) for most in (12 * 784, 10**6))
    groups = photographs(*SIZES[:4])
    with serving(policy=wide) as server:
        prompts, rollout = sample(VLLMSampler(str(tmp_path), server.url), stir(policy, 1), groups=groups)
    logp = policy.score(prompts, rollout.tokens, rollout.mask, TEMPERATURE)
    torch.testing.assert_close(rollout.logp, logp.detach(), atol=1e-4, rtol=0)


def test_what_a_server_would_resize_again_is_refused(policy, tmp_path):
    """The embedded policies take one number of pixels, which few sizes but 112 x 112 have."""
    with (
        serving() as server,
        pytest.raises(ValueError, match=r"^photographs: an image of 80 x 100 pixels has") as caught,
    ):
        sample(VLLMSampler(str(tmp_path), server.url), policy, groups=photographs((112, 112), (100, 80)))
    assert "\n" not in str(caught.value)


def test_adapters_are_told_when_they_have_changed_and_only_then(policy, tmp_path):
    with serving() as server:
        sampler = VLLMSampler(str(tmp_path), server.url)
        for seed, times in ((1, 3), (2, 1)):
            stir(policy, seed)
            for _ in range(times):
                sample(sampler, policy)
            (folder,) = tmp_path.iterdir()
            wanted, saved = get_peft_model_state_dict(policy.net), load_file(folder / "adapter_model.safetensors")
            assert set(saved) == set(wanted)
            assert all(torch.equal(saved[name], weight) for name, weight in wanted.items())
            config = json.loads((folder / "adapter_config.json").read_text())
            assert (config["r"], config["lora_alpha"]) == (POLICY.lora.rank, POLICY.lora.alpha)
            assert list(server.adapters) == [folder.name]
    assert len(asked(server, "/v1/load_lora_adapter")) == 2
    assert len(asked(server, "/v1/unload_lora_adapter")) == 1


CHANGES = {
    "fused": lambda weight: updated(torch.optim.SGD([weight], lr=1e-3, fused=True)),
    "foreach": lambda weight: updated(torch.optim.AdamW([weight], lr=1e-3, foreach=True)),
    "a write through .data, as DeepSpeed's": lambda weight: weight.data.mul_(1.5),
    "another tensor": lambda weight: setattr(weight, "data", weight.data + 1),
    "the last bit of a number": lambda weight: weight.data[0, :1].copy_(weight.data[0, :1].nextafter(torch.ones(1))),
}


def updated(optimizer):
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    weight.grad = None


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_one_weight_is_seen(change, policy):
    stir(policy, 1)
    weight = next(p for name, p in policy.named_parameters() if "lora_B" in name)
    before = fingerprint(adapter_weights(policy))
    assert fingerprint(adapter_weights(policy)) == before
    CHANGES[change](weight)
    assert fingerprint(adapter_weights(policy)) != before


def test_adapters_travel_in_the_dtype_of_the_policy_and_are_told_apart_in_their_own(tmp_path):
    policy = stir(Policy(replace(POLICY, dtype="bfloat16")), 1)
    weights = adapter_weights(policy)
    save(policy, weights, tmp_path / "half")
    saved = load_file(tmp_path / "half" / "adapter_model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    assert all(torch.equal(saved[name], weight.bfloat16()) for name, weight in weights.items())
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_each_replica_gets_the_adapters_and_its_share_of_the_prompts(policy, tmp_path):
    with serving() as one, serving() as two:
        sampler = VLLMSampler(str(tmp_path), [one.url, two.url])
        for seed in (1, 2):
            prompts, rollout = sample(sampler, stir(policy, seed))
            logp = policy.score(prompts, rollout.tokens, rollout.mask, TEMPERATURE).detach()
            torch.testing.assert_close(rollout.logp, logp, atol=1e-4, rtol=0)
    assert set(one.adapters) == set(two.adapters) == {folder.name for folder in tmp_path.iterdir()}
    shares = [len(asked(server, "/v1/chat/completions")) - 1 for server in (one, two)]  # one was the certain token
    assert shares == [4, 2]


def test_a_replica_that_answers_with_other_weights_is_named(policy, tmp_path):
    wrong = lambda answer: answer | {"model": "tiny"}  # noqa: E731
    words = r"it answers as tiny where lightning-sal-\w+ was asked"
    with serving() as one, serving(spoil=wrong) as base, pytest.raises(ConnectionError, match=words) as caught:
        sample(VLLMSampler(str(tmp_path), [one.url, base.url]), policy)
    assert base.url in str(caught.value)
    assert one.url not in str(caught.value)


def test_a_server_that_was_started_anew_is_told_the_adapters_again(policy, tmp_path, caplog):
    with serving() as server:
        sampler = VLLMSampler(str(tmp_path), server.url)
        sample(sampler, stir(policy, 1))
        server.adapters.clear()
        prompts, rollout = sample(sampler, policy)
        logp = policy.score(prompts, rollout.tokens, rollout.mask, TEMPERATURE).detach()
        torch.testing.assert_close(rollout.logp, logp, atol=1e-4, rtol=0)
        assert "told again" in caplog.text
        server.adapters.clear()
        sample(sampler, stir(policy, 2))  # the former ones cannot be unloaded
        assert list(server.adapters) == [folder.name for folder in tmp_path.iterdir()]


@pytest.mark.parametrize("trouble", [(AWAY, b""), (500, b"EngineCore is dead")])
def test_a_server_that_goes_down_is_waited_for(trouble, policy, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("lightning_sal.samplers.vllm.server._POLL_S", 0.01)
    down = []

    def refuse(path):
        if not down or "lora" in path:
            return None
        if path == "/health":
            return down.pop() if len(down) > 1 else down.clear()
        return trouble

    with serving(refuse=refuse) as server:
        sampler = VLLMSampler(str(tmp_path), server.url)
        sample(sampler, policy)
        down.extend([(AWAY, b"")] * 3)
        server.adapters.clear()
        assert len(sample(sampler, policy)[1].texts) == G * len(GROUPS)
    assert "it is waited for" in caplog.text


def test_a_server_that_stays_away_ends_the_run(policy, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_sal.samplers.vllm.server._POLL_S", 0.01)
    with serving() as server:
        sampler = VLLMSampler(str(tmp_path), server.url, timeout_s=5)
        sample(sampler, policy)
    for one in sampler.servers:
        one.timeout_s = 0.1
    with pytest.raises(ConnectionError, match=r"Connection refused.*vllm serve"):
        sample(sampler, policy)


def test_at_temperature_0_one_response_is_asked_and_stands_for_all(policy, tmp_path):
    with serving() as server:
        prompts = policy.encode(GROUPS)
        found, own = (
            of(prompts, max_new_tokens=TOKENS, responses=G, temperature=0.0, generator=torch.Generator()).tokens
            for of in (partial(VLLMSampler(str(tmp_path), server.url).sample, policy, GROUPS), policy.sample)
        )
    assert found.equal(own)


def test_a_server_on_the_same_gpu_is_awake_for_sampling_alone(policy, tmp_path):
    with serving(asleep=True) as server:
        sampler = VLLMSampler(str(tmp_path), server.url, sleep=True)
        for seed in (1, 1, 2):
            sample(sampler, stir(policy, seed))
            assert server.asleep


def test_a_server_without_sleep_is_told_how_to_get_it(policy, tmp_path):
    refuse = lambda path: (404, {"detail": "Not Found"}) if path == "/wake_up" else None  # noqa: E731
    with serving(refuse=refuse) as server, pytest.raises(ConnectionError, match="wake_up answered 404") as caught:
        sample(VLLMSampler(str(tmp_path), server.url, sleep=True), policy)
    assert "VLLM_SERVER_DEV_MODE=1" in str(caught.value)
    assert "--enable-sleep-mode" in str(caught.value)


def test_the_command_states_the_limits_of_the_policy(policy):
    limited = Policy(replace(POLICY, min_pixels=784, max_pixels=12544, max_prompt_tokens=500))
    command = serve_command(limited, 2, 12)
    assert "--max-model-len 512" in command
    assert """--mm-processor-kwargs '{"size": {"shortest_edge": 784, "longest_edge": 12544}}'""" in command
    assert "--mm-processor-kwargs" not in serve_command(policy, 2, 12)


@pytest.mark.parametrize("url", [[], ["http://a:1", "http://a:1"]])
def test_replicas_have_addresses_of_their_own(url, tmp_path):
    with pytest.raises(ValueError, match="each once"):
        VLLMSampler(str(tmp_path), url)


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
        sample(VLLMSampler(str(tmp_path)), Policy(PolicyConfig("tiny-scratch")))


def test_yaml_can_name_it(tmp_path):
    parser = ArgumentParser()
    parser.add_argument("--sampler", type=Sampler)
    made = {"class_path": "lightning_sal.samplers.VLLMSampler", "init_args": {"adapters": str(tmp_path)}}
    sampler = parser.instantiate(parser.parse_object({"sampler": made})).sampler
    assert isinstance(sampler, VLLMSampler)
    assert sampler.adapters == tmp_path


class TwoRanks:
    """torch.distributed as two threads see it."""

    def __init__(self):
        self.gate, self.local, self.shared = threading.Barrier(2, timeout=60), threading.local(), []

    def is_initialized(self):
        return True

    def get_rank(self):
        return self.local.rank

    def barrier(self):
        self.gate.wait()

    def broadcast_object_list(self, values):
        if self.get_rank() == 0:
            self.shared[:] = pickle.loads(pickle.dumps(values))
        self.gate.wait()
        values[:] = self.shared
        self.gate.wait()


def test_of_two_ranks_one_tells_the_adapters_and_both_hear_of_failure(policy, tmp_path, monkeypatch):
    ranks, stirred = TwoRanks(), [stir(policy, 1), stir(often_ending(Policy(POLICY)), 1)]
    for name in ("is_initialized", "get_rank", "barrier", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, getattr(ranks, name))

    def act(rank, url, *broken):
        ranks.local.rank = rank
        here, lines = VLLMSampler(str(tmp_path / "here"), url), []
        texts = [sample(here, stirred[rank], seed=rank)[1].texts for _ in range(2)]
        for one in broken:
            with pytest.raises(ConnectionError) as caught:
                sample(VLLMSampler(str(tmp_path / "away"), one), stirred[rank])
            lines.append(str(caught.value))
        return texts, lines

    with serving() as gone:
        pass
    with serving() as server, serving(refuse=lambda path: (404, b"no")) as refusing, ThreadPoolExecutor(2) as pool:
        urls = [[one.url] * 2 for one in (server, gone, refusing)]
        (texts, lines), (others, same) = pool.map(act, range(2), *urls)
    assert len(asked(server, "/v1/load_lora_adapter")) == 1
    assert len(asked(server, "/v1/chat/completions")) == 1 + 2 * 2 * len(GROUPS)
    assert texts != others
    assert "Connection refused" in lines[0]
    assert "answered 404 no" in lines[1]
    assert lines == same
