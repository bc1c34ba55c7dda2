"""Two processes (gloo) against one: the same gradients of a step, values of validation, and results of a test."""

import lightning as L
import pytest
import torch

from lightning_sal.callbacks import EvaluationResults
from lightning_sal.results import read_images, read_summary
from tests.distributed.processes import apart
from tests.modules.parts import SGD, scenes, sft, trained, trainer


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


def run(path, processes, stage):
    options = {"devices": processes, "callbacks": [Keep(path)]}
    if processes > 1:
        options["strategy"] = "ddp_fork"
    module = sft(optimizer=SGD, micro_batch_size=2)
    data = scenes(streams=["sft"], batch_size=6 // processes, val_size=7, test_size=7)
    if stage == "fit":
        trainer(path.parent, max_steps=1, **options).fit(module, datamodule=data)
    elif stage == "test":
        options["callbacks"] = [EvaluationResults(path, "a")]
        trainer(path.parent, **options).test(module, datamodule=data, verbose=False)
    else:
        trainer(path.parent, limit_val_batches=1.0, **options).validate(module, datamodule=data, verbose=False)


def by_one_and_by_two(stage, tmp_path):
    """What one process and what two leave behind."""
    paths = {}
    for processes in (1, 2):
        paths[processes] = tmp_path / f"{processes}.pt"
        apart(run, paths[processes], processes, stage)
    return paths.values()


def test_results_of_two_processes_are_those_of_one(tmp_path):
    one, two = by_one_and_by_two("test", tmp_path)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    first, second = read_summary(one), read_summary(two)
    assert len(first.tasks) > 1
    for task in first.tasks:
        rows = [[row | {"confidence": ""} for row in read_images(folder, task)] for folder in (one, two)]
        assert rows[0] == rows[1]
    for name, metrics in first.metrics.items():
        assert second.metrics[name] == pytest.approx(metrics, abs=1e-5)


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_two_processes_equal_one(stage, tmp_path):
    one, two = (torch.load(path, weights_only=True) for path in by_one_and_by_two(stage, tmp_path))
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=name)
