"""SIGTERM during a fit: all ranks end after the same step, with a checkpoint, and the run goes on as if nothing had been."""

import os
import signal
import stat

import lightning as L
import pytest
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.distributed.processes import in_processes
from tests.modules.parts import scenes, sft, trained, trainer


@pytest.fixture(autouse=True)
def _ctrl_c_is_heeded():
    """A shell starts its background jobs with the signal ignored, and they hand that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signal(L.Callback):
    """Sends a signal to its own process once a number of steps is done, in the midst of the next."""

    def __init__(self, step, number=signal.SIGTERM, rank=0):
        self.step, self.number, self.rank = step, number, rank

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


class InValidation(Signal):
    """Sends it in the validation after that number of steps."""

    def on_validation_batch_start(self, trainer, *_):
        self.on_before_optimizer_step(trainer)


def fit(folder, *callbacks, checkpoint=None, steps=5, **options):
    module, save = sft(), ModelCheckpoint(folder, every_n_train_steps=4, filename="{step}", save_last=True)
    run = trainer(folder, max_steps=steps, callbacks=[*callbacks, save], enable_checkpointing=True, **options)
    run.fit(module, datamodule=scenes(streams=["sft"]), ckpt_path=checkpoint, weights_only=True)
    return trained(module)


def test_the_step_is_finished_and_the_run_goes_on_to_the_same_weights(tmp_path, capsys):
    expected = fit(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "stopped", Signal(2))
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    last = tmp_path / "stopped" / "last.ckpt"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning: ")]
    assert lines == [f"lightning: terminated after step 3: the same command with --ckpt_path {last} goes on from there"]
    assert torch.load(last, weights_only=True)["global_step"] == 3
    went_on = fit(tmp_path / "stopped", checkpoint=last)
    assert all(torch.equal(weight, went_on[name]) for name, weight in expected.items())
    assert [path.name for path in sorted((tmp_path / "stopped").glob("*.ckpt"))] == ["last.ckpt", "step=4.ckpt"]


def test_a_validation_is_left_at_once_and_the_run_goes_on_to_the_same_weights(tmp_path):
    options = {"limit_val_batches": None, "val_check_interval": 2, "check_val_every_n_epoch": None}
    expected = fit(tmp_path / "whole", **options)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path / "stopped", InValidation(2), **options)
    assert stop.value.code == 143
    last = tmp_path / "stopped" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    went_on = fit(tmp_path / "stopped", checkpoint=last, **options)
    assert all(torch.equal(weight, went_on[name]) for name, weight in expected.items())


class AfterTraining(Signal):
    def on_train_end(self, *_):
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_comes_after_the_last_step_is_left_at_once_with_a_checkpoint(tmp_path, number):
    """Lightning makes a SystemExit of either, and the command line the right exit code of that."""
    with pytest.raises(SystemExit):
        fit(tmp_path, AfterTraining(None, number), steps=2)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_ctrl_c_leaves_the_last_whole_step_and_the_run_goes_on_to_the_same_weights(tmp_path, capsys):
    expected = fit(tmp_path / "whole")
    with pytest.raises(SystemExit):
        fit(tmp_path / "stopped", Signal(2, signal.SIGINT))
    last = tmp_path / "stopped" / "last.ckpt"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning: ")]
    assert lines == [f"lightning: stopped after step 2: the same command with --ckpt_path {last} goes on from there"]
    assert torch.load(last, weights_only=True)["global_step"] == 2
    went_on = fit(tmp_path / "stopped", checkpoint=last)
    assert all(torch.equal(weight, went_on[name]) for name, weight in expected.items())


def test_without_checkpoints_the_line_says_so(tmp_path, capsys):
    run = trainer(tmp_path, max_steps=3, callbacks=[Signal(1)])
    with pytest.raises(SystemExit) as stop:
        run.fit(sft(), datamodule=scenes(streams=["sft"]))
    assert stop.value.code == 143
    assert "after step 2, without a checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def one_rank_is_asked(count, rank, folder):
    try:
        fit(folder, Signal(2, rank=1), strategy="ddp", devices=count, steps=4)
    except SystemExit as stop:
        (folder / f"rank-{rank}").write_text(str(stop.code))


def test_all_ranks_end_where_one_is_asked(tmp_path):
    in_processes(one_rank_is_asked, [2], tmp_path)
    # The first of a machine tells what happened; Lightning would kill it where another ended with anything but 0.
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["143", "0"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_slurm_still_requeues(tmp_path, monkeypatch):
    """Its signal is Lightning's: a checkpoint at once, `scontrol requeue`; SIGTERM, which follows, ends after the step."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    job = {"JOB_ID": "17", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "NODELIST": "localhost"}
    for name, value in {**job, "JOB_NAME": "train", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    asked, ended = Signal(1, signal.SIGUSR1), Signal(2)
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, asked, ended, plugins=[SLURMEnvironment(requeue_signal=signal.SIGUSR1)])
    assert stop.value.code == 143
    assert (tmp_path / "asked").read_text() == "requeue 17\n"
    assert torch.load(tmp_path / "hpc_ckpt_1.ckpt", weights_only=True)["global_step"] == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
