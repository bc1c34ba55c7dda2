"""FSDP2 on two processes (gloo) against one process: gradients, weights, validation, checkpoints."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_sal.modules import CGPO, GRPO, SFT
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.samplers import PolicySampler
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import Keep, assert_equal, by_ranks, rl_module, whole
from tests.modules.parts import ADAMW, POLICY, SGD, StripeSegmenter, scenes, trainer

FULL = PolicyConfig("tiny-scratch")
CASES = {
    "sft": (SFT, {}, {}),
    "grpo": (GRPO, {}, {}),
    "clipped": (GRPO, {}, {"gradient_clip_val": 1e-3}),
    "recomputing": (SFT, {"policy": replace(POLICY, gradient_checkpointing=True)}, {}),
    "sft of all weights": (SFT, {"policy": FULL}, {"gradient_clip_val": 1e-3}),
    "cgpo of all weights": (CGPO, {"policy": FULL}, {}),
    "sft with vision": (SFT, {"policy": replace(FULL, train_vision=True)}, {}),
}


def weights(module):
    return {name: whole(p) for name, p in module.named_parameters() if p.requires_grad}


def made(algorithm, seed, **options):
    if algorithm is not SFT:
        return rl_module(algorithm, seed, **options)
    torch.manual_seed(seed)
    defaults = {"policy": POLICY, "segmenter": StripeSegmenter(), "optimizer": SGD, "max_new_tokens": 8}
    return SFT(**{**defaults, "micro_batch_size": 2, **options})


def fsdp(world_size):
    if world_size == 1:
        return {}
    strategy = ModelParallelStrategy(world_size, tensor_parallel_size=1, save_distributed_checkpoint=False)
    return {"strategy": strategy, "devices": world_size}


def steps(world_size, rank, folder):
    """One step of each case, from adapters that each rank draws differently."""
    for name, (algorithm, model, options) in CASES.items():
        keep, module = Keep(), made(algorithm, rank, **model)
        run = trainer(folder, max_steps=1, callbacks=[keep], **fsdp(world_size), **options)
        stream = "sft" if algorithm is SFT else "rl"
        run.fit(module, datamodule=scenes(streams=[stream], batch_size=4 // world_size))
        found = {
            "gradients": keep.gradients,
            "weights": weights(module),
            "loss": run.callback_metrics["train/loss"],
            "shards": [n for n, p in module.policy.named_parameters() if type(p) is not torch.nn.Parameter],
        }
        torch.save(found, folder / f"{name}-{world_size}-{rank}.pt")


def evaluation(world_size, rank, folder):
    """Validation of three scenes, of which the second rank gets one, and a step on sampled responses."""
    data = scenes(streams=["rl"], batch_size=1, val_size=3)
    module = made(SFT, 0)
    run = trainer(folder, limit_val_batches=1.0, **fsdp(world_size))
    run.validate(module, datamodule=data, verbose=False)
    values = {name: value.detach() for name, value in run.callback_metrics.items()}
    module = rl_module(GRPO, sampler=PolicySampler(), max_new_tokens=8)
    run = trainer(folder, max_steps=1, limit_val_batches=1.0, **fsdp(world_size))
    run.fit(module, datamodule=data)
    torch.save({"values": values, "ratio": run.callback_metrics["train/sampler_ratio/max"]}, folder / f"evaluation-{world_size}-{rank}.pt")


def resuming(world_size, rank, folder):
    """Two steps at once, and one, a checkpoint, and another."""
    for name, policy in (("adapters", POLICY), ("all", FULL)):
        if world_size == 1:
            continue
        path = folder / f"{name}.ckpt"
        options = {"optimizer": ADAMW, "policy": policy}
        data = {"streams": ["sft"], "batch_size": 2}
        at_once = made(SFT, 0, **options)
        trainer(folder, max_steps=2, **fsdp(world_size)).fit(at_once, datamodule=scenes(**data))
        first = made(SFT, 0, **options)
        run = trainer(folder, max_steps=1, **fsdp(world_size))
        run.fit(first, datamodule=scenes(**data))
        run.save_checkpoint(path)
        second = made(SFT, 1, **options)
        trainer(folder, max_steps=2, **fsdp(world_size)).fit(second, datamodule=scenes(**data), ckpt_path=path)
        torch.save([weights(m) for m in (at_once, first, second)], folder / f"{name}-{rank}.pt")


def work(world_size, rank, folder):
    import os
    for part in [globals()[n] for n in os.environ.get("PARTS","steps,evaluation,resuming").split(",")]:
        print(part.__name__, flush=True)
        part(world_size, rank, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, (1, 2), folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(name, folder):
    one, *two = by_ranks(folder, name)
    assert_equal(one, two, 1e-5)
    for rank in two:
        assert any("layers.0" in name for name in rank["shards"])
        assert not any("lora" in name for name in rank["shards"])
