"""DDP and FSDP2 as conf/strategy has them, on two and on four processes: RL steps are those of one process, and of each
other."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

import lightning_sal
from lightning_sal.modules import CGPO, GRPO
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.rewards import Reward, RewardTerm, Scores
from lightning_sal.samplers import PolicySampler
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import PROMPTS, Keep, assert_equal, rl_module, whole
from tests.modules.parts import scenes, trainer

FILES = Path(lightning_sal.__file__).parent / "conf" / "strategy"
ALGORITHMS = {"cgpo": CGPO, "grpo": GRPO}
TINY = PolicyConfig("tiny", lora=LoRA(rank=4))


class Letters(RewardTerm):
    """A term by which hardly two responses are worth the same."""

    name = "letters"
    bounds = (0.0, 1.0)

    def forward(self, responses):
        values = [sum(map(ord, item.text)) % 97 / 97 for item in responses]
        return Scores(torch.tensor(values), (None,) * len(responses))


SAMPLED = {"policy": TINY, "sampler": PolicySampler(), "max_new_tokens": 8, "temperature": 2.0}


def on_cpus(name, world_size):
    """What a file of conf/strategy says of the trainer, but for the accelerator and the number of processes."""
    if world_size == 1:
        return {}
    stated = yaml.safe_load((FILES / f"{name}.yaml").read_text())["trainer"]["strategy"]
    if isinstance(stated, dict):
        module, _, kind = stated["class_path"].rpartition(".")
        options = stated["init_args"]
        options |= {"data_parallel_size": world_size} if "data_parallel_size" in options else {}
        stated = getattr(import_module(module), kind)(**options)
    return {"strategy": stated, "devices": world_size}


def step(name, algorithm, world_size, folder, precision="32-true", **options):
    """A step of all prompts, in two updates: gradients, weights, loss."""
    keep, module = Keep(), rl_module(algorithm, **options)
    run = trainer(folder, max_steps=1, callbacks=[keep], precision=precision, **on_cpus(name, world_size))
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=PROMPTS // world_size))
    weights = {name: whole(p) for name, p in module.named_parameters() if p.requires_grad}
    return {"gradients": keep.gradients, "weights": weights, "loss": run.callback_metrics["train/loss"]}


def work(world_size, rank, folder):
    for strategy in ("ddp", "fsdp") if world_size > 1 else ("one",):
        found = {}
        for name, algorithm in ALGORITHMS.items():
            found[f"{name}, written"] = step(strategy, algorithm, world_size, folder)
            if world_size > 1:
                found[f"{name}, sampled"] = step(
                    strategy, algorithm, world_size, folder, reward=Reward([Letters()]), **SAMPLED
                )
        if world_size > 1:
            half = SAMPLED | {"policy": replace(TINY, dtype="bfloat16"), "reward": Reward([Letters()])}
            found["half"] = step(strategy, CGPO, world_size, folder, "bf16-mixed", **half)
        torch.save(found, folder / f"{strategy}-{world_size}-{rank}.pt")


@pytest.fixture(scope="module", params=[pytest.param(2, id="two"), pytest.param(4, id="four", marks=pytest.mark.slow)])
def found(request, tmp_path_factory):
    """What one process found, and each of several under both strategies."""
    folder, count = tmp_path_factory.mktemp("ranks"), request.param
    in_processes(work, (1, count), folder)

    def of(strategy, world_size):
        return [torch.load(folder / f"{strategy}-{world_size}-{r}.pt", weights_only=True) for r in range(world_size)]

    return {"one": of("one", 1)[0], "ddp": of("ddp", count), "fsdp": of("fsdp", count)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_step_is_that_of_one_process(strategy, algorithm, found):
    name = f"{algorithm}, written"
    assert_equal(found["one"][name], [rank[name] for rank in found[strategy]], 1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_sample_and_learn_alike(algorithm, found):
    """Each rank draws the same numbers under both, from layers that are whole or gathered."""
    name = f"{algorithm}, sampled"
    for first, second in zip(found["ddp"], found["fsdp"], strict=True):
        assert_equal(first[name], [second[name]], 1e-4)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_in_half_precision_all_ranks_learn_the_same(strategy, found):
    ranks = [rank["half"] for rank in found[strategy]]
    before, after = ranks[0]["gradients"][0], ranks[0]["weights"]
    assert any(bool(gradient.any()) for gradient in before.values())
    for name, weight in after.items():
        assert weight.dtype == torch.float32
        assert bool(weight.isfinite().all())
        assert all(rank["weights"][name].equal(weight) for rank in ranks), name
