"""The vLLM sampler against real servers, which run where LIGHTNING_SAL_VLLM names a `vllm` executable.

`tests/samplers/live.sh` makes an environment for two CPU cores and runs this file. One server stands alone, the other has
two replicas behind its address; both run the tiny policy by the command that the sampler's errors name.
"""

import json
import logging
import os
import subprocess
import threading
import urllib.request
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.images import resized
from lightning_sal.samplers import VLLMSampler
from lightning_sal.samplers.vllm.command import serve_command
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
from tests.modules.parts import cgpo, scenes, trainer
from tests.modules.test_rl import G
from tests.samplers.parts import GROUPS, SIZES, error, photographs, sample, stir
from tests.samplers.vllm_server import LiveServer

VLLM = os.environ.get("LIGHTNING_SAL_VLLM")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VLLM, reason="LIGHTNING_SAL_VLLM names no vllm executable: run tests/samplers/live.sh"),
]

LEAST, MOST = 4 * 784, 16 * 784  # pixels
CONFIG = PolicyConfig("tiny", lora=LoRA(rank=16), min_pixels=LEAST, max_pixels=MOST)
TOKENS = 56
ROUNDING = 1e-4  # of float32


@pytest.fixture(scope="module")
def policy():
    return FastPolicy(CONFIG)


@pytest.fixture(scope="module")
def servers(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    command = serve_command(policy, 3, TOKENS)
    alone = LiveServer(VLLM, command, folder / "alone.log")
    two = LiveServer(VLLM, f"{command} --data-parallel-size 2 --api-server-count 1", folder / "two.log")
    try:
        for server in (alone, two):
            server.start()
        for server in (alone, two):
            server.wait()
        yield alone, two
    finally:
        for server in (alone, two):
            server.kill()


@pytest.fixture(scope="module")
def sampler(servers, tmp_path_factory):
    return VLLMSampler(str(tmp_path_factory.mktemp("adapters")), [server.url for server in servers])


SINGLE = [group for size in SIZES for group in photographs(size)]
SHOWN = [*GROUPS, *photographs(*SIZES[:3]), *SINGLE]
ask = partial(sample, groups=SHOWN, tokens=TOKENS)


@pytest.mark.parametrize("temperature", [1.0, 2.0])  # vLLM refuses more than 2
def test_each_replica_samples_the_policy_with_the_adapters_of_the_moment(temperature, policy, sampler):
    """Several images, photographs of any size, G responses: log-probabilities are those that the policy itself gives."""
    found = []
    for seed in (1, 2):
        stir(policy, seed)
        found.append(ask(sampler, policy, temperature=temperature))
        assert error(policy, *found[-1], temperature) < ROUNDING
    assert error(policy, *found[0], temperature) > 0.1  # the first adapters' responses under the second
    for _, rollout in found:
        assert len(rollout.texts) == G * len(SHOWN)
        assert not policy.suppressed[rollout.tokens[rollout.mask]].any()  # likely ones at temperature 2
        of_a_prompt = [set(rollout.texts[at : at + G]) for at in range(0, len(rollout.texts), G)]
        assert temperature < 2 or all(len(texts) > 1 for texts in of_a_prompt)


def test_each_of_two_replicas_behind_one_address_answers(policy, servers, tmp_path):
    two = servers[1]
    before = answered(two)
    stir(policy, 7)
    assert error(policy, *ask(VLLMSampler(str(tmp_path), two.url), policy)) < ROUNDING
    assert all(now > then for now, then in zip(answered(two), before, strict=True))


def answered(server):
    """How many responses each of its replicas has given, by its own count."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("vllm:request_success_total")]
    return [sum(float(line.split()[-1]) for line in lines if f'engine="{engine}"' in line) for engine in (0, 1)]


def test_at_temperature_0_it_says_what_the_policy_says(policy, sampler):
    stir(policy, 3)
    prompts, rollout = ask(sampler, policy, temperature=0.0)
    own = policy.sample(prompts, TOKENS, responses=G, temperature=0.0, generator=torch.Generator())
    assert rollout.texts == own.texts
    assert rollout.tokens.equal(own.tokens)


def test_its_processor_makes_of_what_is_sent_what_the_policys_makes_of_the_image(policy, tmp_path):
    processor, images = policy.processor.image_processor, [group.images[0] for group in SINGLE]
    for number, image in enumerate(images):
        Image.fromarray(resized(image, processor).contiguous().numpy()).save(tmp_path / f"{number}.png")
    python, script = Path(VLLM).parent / "python", Path(__file__).parent / "vllm_pixels.py"
    model, limits = str(EMBEDDED_POLICIES["tiny"]), json.dumps({"size": {"shortest_edge": LEAST, "longest_edge": MOST}})
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, script, model, tmp_path, limits], check=True, env=without)
    raw = {"do_rescale": False, "do_normalize": False}  # vLLM scales pixels on the model's device
    for number, image in enumerate(images):
        wanted = processor(image.permute(2, 0, 1), return_tensors="pt", **raw)["pixel_values"]
        assert wanted.max() > 10
        assert torch.from_numpy(np.load(tmp_path / f"{number}.npy")).equal(wanted.float())


def test_a_server_that_sleeps_is_woken_and_put_to_sleep(policy, servers, tmp_path):
    """The images are those of a moment ago: what the server keeps of them must not outlive its sleep by halves."""
    alone = servers[0]
    sampler = VLLMSampler(str(tmp_path), alone.url, sleep=True)
    for seed in (4, 4, 5):
        stir(policy, seed)
        assert error(policy, *ask(sampler, policy)) < ROUNDING
        with urllib.request.urlopen(f"{alone.url}/is_sleeping", timeout=60) as answer:
            assert json.load(answer) == {"is_sleeping": True}
    urllib.request.urlopen(urllib.request.Request(f"{alone.url}/wake_up", b""), timeout=60).close()


class Ratios(L.Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *_):
        self.found.append([float(trainer.callback_metrics[f"train/sampler_ratio/{name}"]) for name in ("min", "max")])


def test_over_40_steps_the_ratio_of_policy_and_server_stays_1(sampler, tmp_path):
    ratios, module = Ratios(), cgpo(policy=CONFIG, sampler=sampler, max_new_tokens=TOKENS)
    run = trainer(tmp_path, max_steps=40, callbacks=[ratios], log_every_n_steps=1)
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=8, steps_per_epoch=40))
    found = torch.tensor(ratios.found)
    print(f"ratio over {len(found)} steps: {found[:, 0].min():.7f} to {found[:, 1].max():.7f}")
    assert len(found) == 40
    assert (found - 1).abs().max() < ROUNDING
    moved = [p for name, p in module.policy.named_parameters() if "lora_B" in name]
    assert all(float(p.detach().abs().max()) > 1e-3 for p in moved)  # they were 0


def test_a_server_that_goes_down_is_waited_for_and_told_the_adapters_again(policy, servers, sampler, caplog):
    stir(policy, 6)
    ask(sampler, policy)
    alone = servers[0]
    alone.kill()
    starting = threading.Timer(5, alone.start)
    starting.start()
    with caplog.at_level(logging.WARNING):
        assert error(policy, *ask(sampler, policy)) < ROUNDING
    starting.join()
    assert "it is waited for" in caplog.text
    assert "told again" in caplog.text
