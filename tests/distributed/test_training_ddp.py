"""Two processes (gloo) against one: the same gradients of a step and the same values of validation."""

import multiprocessing

import lightning as L
import pytest
import torch

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
    torch.set_num_threads(1)
    options = {"devices": processes, "callbacks": [Keep(path)]}
    if processes > 1:
        options["strategy"] = "ddp_fork"
    module = sft(optimizer=SGD, micro_batch_size=2)
    data = scenes(streams=["sft"], batch_size=6 // processes, val_size=7)
    if stage == "fit":
        trainer(path.parent, max_steps=1, **options).fit(module, datamodule=data)
    else:
        trainer(path.parent, limit_val_batches=1.0, **options).validate(module, datamodule=data, verbose=False)


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_two_processes_equal_one(stage, tmp_path):
    paths = {}
    for processes in (1, 2):
        paths[processes] = tmp_path / f"{processes}.pt"
        # A process of its own: the strategy forks, which the threads of the tests' process would not survive.
        child = multiprocessing.get_context("spawn").Process(target=run, args=(paths[processes], processes, stage))
        child.start()
        child.join(timeout=240)
        assert child.exitcode == 0
    one, two = (torch.load(path, weights_only=True) for path in paths.values())
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=name)
