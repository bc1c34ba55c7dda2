"""Two processes (gloo) against one: the same gradients of a step, values of validation, and results of a test."""

import lightning as L
import pytest
import torch

from lightning_sal.callbacks import EvaluationResults, InterleavedSFT
from lightning_sal.evaluation.results import read_images, read_summary
from tests.distributed.processes import in_processes
from tests.modules.parts import SGD, cgpo, scenes, sft, trained, trainer


class Keep(L.Callback):
    """Writes weights after a fit and values after a validation, from the first process."""

    def __init__(self, path):
        self.path = path

    def on_fit_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(trained(pl_module), self.path)

    def on_validation_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save({name: value.detach() for name, value in trainer.callback_metrics.items()}, self.path)


def work(world_size, rank, folder):
    for stage in ("test", "fit", "validate"):
        path = folder / f"{stage}-{world_size}"
        options = {"devices": world_size, "callbacks": [Keep(path)], "strategy": "ddp" if world_size > 1 else "auto"}
        module = sft(optimizer=SGD, micro_batch_size=2)
        data = scenes(streams=["sft"], batch_size=6 // world_size, val_size=7, test_size=7)
        if stage == "fit":
            trainer(folder, max_steps=1, **options).fit(module, datamodule=data)
        elif stage == "test":
            options["callbacks"] = [EvaluationResults(path, "a")]
            trainer(folder, **options).test(module, datamodule=data, verbose=False)
        else:
            trainer(folder, limit_val_batches=1.0, **options).validate(module, datamodule=data, verbose=False)
    for name, validation in (("plain", {}), ("validated", {"limit_val_batches": 1.0, "val_check_interval": 1})):
        options["callbacks"] = [InterleavedSFT(rl_steps=1, sft_steps=1), Keep(folder / f"{name}-{world_size}")]
        run = trainer(folder, max_steps=3, **validation, **options)
        # Drawn responses in validation too: what it draws must not move what training draws.
        run.fit(cgpo(evaluation_temperature=1.0), datamodule=scenes(batch_size=6 // world_size, val_size=7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one process and what two leave behind."""
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, (1, 2), folder)
    return folder


def test_results_of_two_processes_are_those_of_one(folder):
    one, two = folder / "test-1", folder / "test-2"
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    first, second = read_summary(one), read_summary(two)
    assert len(first.tasks) > 1
    for task in first.tasks:
        rows = [[row | {"confidence": ""} for row in read_images(folder, task)] for folder in (one, two)]
        assert rows[0] == rows[1]
    for name, metrics in first.metrics.items():
        assert second.metrics[name] == pytest.approx(metrics, abs=1e-5)
    used = [{name: each | {"seconds": 0} for name, each in results.usage.items()} for results in (first, second)]
    assert used[0] == used[1]
    assert sum(each["samples"] for each in first.usage.values()) == 7
    assert all(each["output_tokens"] > each["samples"] for each in first.usage.values())


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_two_processes_equal_one(stage, folder):
    one, two = (torch.load(folder / f"{stage}-{count}", weights_only=True) for count in (1, 2))
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("count", [1, 2])
def test_validation_changes_nothing_of_a_training(count, folder):
    plain, validated = (torch.load(folder / f"{name}-{count}", weights_only=True) for name in ("plain", "validated"))
    assert {name for name, weight in plain.items() if not torch.equal(weight, validated[name])} == set()
