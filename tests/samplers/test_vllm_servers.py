"""Adapters and servers over a run, against servers on loopback: changes, replicas, ranks, restarts, sleep."""

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samplers import VLLMSampler
from lightning_sal.samplers.vllm.adapters import adapter_weights, fingerprint, save
from tests.modules.parts import POLICY
from tests.modules.test_rl import G
from tests.samplers.parts import GROUPS, asked, error, sample, stir
from tests.samplers.server import AWAY, often_ending, serving

COMPLETIONS = "/v1/chat/completions"


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
    policy = stir(FastPolicy(replace(POLICY, dtype="bfloat16")), 1)
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
            assert error(policy, *sample(sampler, stir(policy, seed))) < 1e-4
    assert set(one.adapters) == set(two.adapters) == {folder.name for folder in tmp_path.iterdir()}
    shares = [len(asked(server, COMPLETIONS)) - 1 for server in (one, two)]  # one was the certain token
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
        assert error(policy, *sample(sampler, policy)) < 1e-4
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


def test_where_one_fails_nobody_goes_on_waiting_for_another(policy, tmp_path):
    """Python does not end before its threads: a run that fails or is interrupted would hang for `timeout_s`."""
    broken = lambda answer: answer | {"choices": []} if len(asked(failing, COMPLETIONS)) > 3 else answer  # noqa: E731
    with serving(spoil=broken) as failing:
        with serving() as leaving:
            sampler = VLLMSampler(str(tmp_path), [failing.url, leaving.url])
            sample(sampler, policy)
        with pytest.raises(ConnectionError, match="the answer has 0 responses"):
            sample(sampler, policy)
        for thread in threading.enumerate():
            if thread.name.startswith("ThreadPool"):
                thread.join(20)
                assert not thread.is_alive()


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


@pytest.mark.parametrize("url", [[], ["http://a:1", "http://a:1"]])
def test_replicas_have_addresses_of_their_own(url, tmp_path):
    with pytest.raises(ValueError, match="each once"):
        VLLMSampler(str(tmp_path), url)


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
    ranks, stirred = TwoRanks(), [stir(policy, 1), stir(often_ending(FastPolicy(POLICY)), 1)]
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
    assert len(asked(server, COMPLETIONS)) == 1 + 2 * 2 * len(GROUPS)
    assert texts != others
    assert "Connection refused" in lines[0]
    assert "answered 404 no" in lines[1]
    assert lines == same
