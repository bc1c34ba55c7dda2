"""ZeRO as conf/strategy has it, on two processes without a GPU: RL steps are those of one process, and of each other.

DeepSpeed is optional. It installs without a compiler: `DS_BUILD_OPS=0 uv pip install deepspeed ninja`.
"""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import deepspeed as lightning_deepspeed

from lightning_sal.rewards import Reward
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import PROMPTS, rl_module
from tests.distributed.test_strategies import ALGORITHMS, SAMPLED, Letters, on_cpus
from tests.modules.parts import scenes, trainer

STAGES = (2, 3)


def weights(module, stage):
    """The adapters, which stage 3 cuts up too."""
    own = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if stage < 3:
        return {name: p.detach().clone() for name, p in own.items()}
    import deepspeed  # pyright: ignore[reportMissingImports]  optional

    with deepspeed.zero.GatheredParameters(list(own.values())):
        return {name: p.detach().clone() for name, p in own.items()}


def work(world_size, rank, folder):
    # Lightning asks for GPUs, by their numbers; DeepSpeed itself does without.
    asking: Any = lightning_deepspeed
    asking.CUDAAccelerator = CPUAccelerator
    asking._validate_device_index_selection = lambda _: None
    asking.argparse = SimpleNamespace(Namespace=lambda device_rank: Namespace(device_rank=rank))
    ways = {"written": {}} | ({"sampled": {"reward": Reward([Letters()]), **SAMPLED}} if world_size > 1 else {})
    for stage in STAGES if world_size > 1 else (0,):
        found = {}
        for name, algorithm in ALGORITHMS.items():
            for way, options in ways.items():
                module = rl_module(algorithm, **options)
                run = trainer(folder, max_steps=1, precision="32-true", **on_cpus(f"deepspeed_{stage}", world_size))
                run.fit(module, datamodule=scenes(streams=["rl"], batch_size=PROMPTS // world_size))
                found[f"{name}, {way}"] = weights(module, stage)
        torch.save(found, folder / f"{stage}-{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Weights after a step, of one process (stage 0) and of two."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, (1, 2), folder)
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def assert_close(found, expected):
    assert set(found) == set(expected)
    moved = max(float(weight.abs().max()) for name, weight in expected.items() if "lora_B" in name)  # from 0
    assert moved > 0
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5 * moved, rtol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_that_of_one_process(stage, algorithm, found):
    for rank in range(2):
        assert_close(found[f"{stage}-{rank}"][f"{algorithm}, written"], found["0-0"][f"{algorithm}, written"])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_sample_and_learn_alike(algorithm, found):
    for rank in range(2):
        assert_close(found[f"3-{rank}"][f"{algorithm}, sampled"], found[f"2-{rank}"][f"{algorithm}, sampled"])
