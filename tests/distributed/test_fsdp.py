"""FSDP2 on two processes (gloo) against one process: gradients, weights, validation, checkpoints."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision, Precision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from lightning_sal.modules import CGPO, GRPO, SFT
from lightning_sal.modules.strategies import strategy_of
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.rewards import Alignment, Format, Reward
from lightning_sal.samplers import PolicySampler
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import Keep, assert_equal, by_ranks, rl_module, whole
from tests.modules.parts import ADAMW, POLICY, SGD, StripeSegmenter, scenes, trained, trainer

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


RESUMED = {"adapters": POLICY, "all": FULL}


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
    """Validation of three scenes, of which the second rank gets one, then an RL step on sampled responses."""
    data = scenes(streams=["rl"], batch_size=1, val_size=3)
    module = made(SFT, 0)
    run = trainer(folder, limit_val_batches=1.0, **fsdp(world_size))
    run.validate(module, datamodule=data, verbose=False)
    values = {name: value.detach() for name, value in run.callback_metrics.items()}
    module = rl_module(GRPO, sampler=PolicySampler(), max_new_tokens=8)
    run = trainer(folder, max_steps=1, **fsdp(world_size))
    run.fit(module, datamodule=data)
    ratios = {way: run.callback_metrics[f"train/sampler_ratio/{way}"] for way in ("min", "max")}
    # All weights in shards, a policy that keeps the format, and maps of what it answers.
    looking = {"policy": PolicyConfig("tiny"), "reward": Reward([Alignment(), Format()]), "max_new_tokens": 56}
    module = made(SFT, 0, **looking)
    run = trainer(folder, limit_val_batches=1.0, **fsdp(world_size))
    run.validate(module, datamodule=scenes(batch_size=1, val_size=3), verbose=False)
    maps = {name: float(value) for name, value in run.callback_metrics.items() if name.endswith("reward_alignment")}
    torch.save({"values": values, "ratios": ratios, "maps": maps}, folder / f"evaluation-{world_size}-{rank}.pt")


def resuming(world_size, rank, folder):
    """Two steps at once; and one, a checkpoint, and another."""
    for name, policy in RESUMED.items():
        path, modules = folder / f"{name}.ckpt", []
        for seed, until, start in ((0, 2, None), (0, 1, None), (1, 2, path)):
            modules.append(made(SFT, seed, optimizer=ADAMW, policy=policy))
            run = trainer(folder, max_steps=until, **fsdp(world_size))
            run.fit(modules[-1], datamodule=scenes(streams=["sft"], batch_size=2), ckpt_path=start)
            if until == 1:
                run.save_checkpoint(path)
        torch.save([weights(module) for module in modules], folder / f"{name}-{rank}.pt")


def work(world_size, rank, folder):
    steps(world_size, rank, folder)
    evaluation(world_size, rank, folder)
    if world_size > 1:
        resuming(world_size, rank, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, (1, 2), folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_two_processes_is_that_of_one(name, folder):
    one, *two = by_ranks(folder, name)
    assert_equal(one, two, 1e-5)
    for rank in two:
        assert any("layers.0" in name for name in rank["shards"])
        assert not any("lora" in name for name in rank["shards"])


def test_validation_gives_the_values_of_one_process_though_a_rank_has_less_to_do(folder):
    one, *two = by_ranks(folder, "evaluation")
    for rank in two:
        assert set(rank["values"]) == set(one["values"])
        for name, value in one["values"].items():
            assert float(rank["values"][name]) == pytest.approx(float(value), abs=1e-5), name


def test_maps_of_a_policy_in_shards_are_those_of_a_whole_one(folder):
    one, *two = by_ranks(folder, "evaluation")
    assert all(0 < value < 1 for value in one["maps"].values())
    assert one["maps"]
    for rank in two:
        assert rank["maps"] == pytest.approx(one["maps"], abs=1e-5)


def test_what_is_sampled_has_the_log_probabilities_that_are_scored(folder):
    for rank in by_ranks(folder, "evaluation"):
        assert [float(rank["ratios"][way]) for way in ("min", "max")] == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_from_its_checkpoint_which_holds_what_is_trained(name, folder, tmp_path):
    at_once, first, second = torch.load(folder / f"{name}-0.pt", weights_only=True)
    for key, weight in at_once.items():
        torch.testing.assert_close(second[key], weight, atol=0, rtol=0, msg=key)
        assert not torch.equal(weight, first[key]), key
    saved = torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == set(first)
    assert all(torch.equal(saved[key], weight) for key, weight in first.items())
    alone = made(SFT, 2, policy=RESUMED[name], optimizer=ADAMW)  # one process loads it too
    run = trainer(tmp_path, max_steps=1)
    run.fit(alone, datamodule=scenes(streams=["sft"], batch_size=4), ckpt_path=folder / f"{name}.ckpt")
    assert all(torch.equal(weights(alone)[key], weight) for key, weight in first.items())


def in_shards(tensor_parallel, **options):
    strategy = ModelParallelStrategy(2, tensor_parallel, **options)
    strategy._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: tensor_parallel)}
    return strategy


@pytest.mark.parametrize(
    ("strategy", "plugin", "line"),
    [
        (in_shards(1), Precision(), "save_distributed_checkpoint false"),
        (in_shards(2, save_distributed_checkpoint=False), Precision(), "tensor_parallel_size 1"),
        (FSDPStrategy(), Precision(), "FSDPStrategy is not supported"),
        (SingleDeviceStrategy(), HalfPrecision("bf16-true"), "take bf16-mixed"),
        (object.__new__(DeepSpeedStrategy), MixedPrecision("bf16-mixed", "cpu"), "model.policy.dtype bfloat16"),
    ],
)
def test_what_would_train_something_else_is_refused(strategy, plugin, line):
    trainer = SimpleNamespace(strategy=strategy, precision_plugin=plugin, precision=plugin.precision, world_size=2)
    with pytest.raises(ValueError, match=line):
        strategy_of(trainer).check(POLICY)


class Precise(MixedPrecision):
    """16-mixed on the CPU, where Lightning itself takes bf16-mixed for it."""

    def __init__(self):
        super().__init__("16-mixed", "cpu")


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_each_update_of_a_rollout_moves_the_adapters_which_stay_float32(precision, tmp_path):
    class Weights(Keep):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.gradients.append(trained(pl_module))

    keep, module = Weights(), rl_module(CGPO, updates_per_rollout=2)
    chosen = {"plugins": [Precise()]} if precision == "16-mixed" else {"precision": precision}
    trainer(tmp_path, max_steps=1, callbacks=[keep], **chosen).fit(
        module, datamodule=scenes(streams=["rl"], batch_size=4)
    )
    states = [*keep.gradients, trained(module)]
    assert len(states) == 3
    for before, after in pairwise(states):
        assert all(weight.dtype == torch.float32 for weight in after.values())
        assert any(not torch.equal(before[name], weight) for name, weight in after.items())
