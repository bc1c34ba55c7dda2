"""What a process that is killed at the worst moment leaves behind, and what a run draws that goes on from it."""

import shutil

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_sal.callbacks import InterleavedSFT
from lightning_sal.policy.config import LoRA, PolicyConfig
from tests.modules.parts import cgpo, scenes, sft, trained, trainer

DROPPING = PolicyConfig("tiny-scratch", lora=LoRA(rank=4, dropout=0.5))


class Copying(ModelCheckpoint):
    """Copies the whole folder as soon as a checkpoint is in it: a process that is killed then leaves no more."""

    def _save_checkpoint(self, trainer, filepath):
        super()._save_checkpoint(trainer, filepath)
        copy = f"{trainer.default_root_dir}-{trainer.global_step}"
        shutil.copytree(trainer.default_root_dir, copy)


def scalars(folder):
    events = EventAccumulator(str(folder / "run" / "version_0"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def fit(module, folder, *callbacks, checkpoint=None, **data):
    logger = TensorBoardLogger(folder, "run", version=0)
    options = {"logger": logger, "log_every_n_steps": 1, "enable_checkpointing": True, "max_steps": 6}
    run = trainer(folder, callbacks=list(callbacks), **options)
    run.fit(module, datamodule=scenes(**data), ckpt_path=checkpoint, weights_only=True)
    return trained(module)


def test_what_was_logged_by_a_checkpoint_is_on_the_disk_and_shown_once(tmp_path):
    """RL, RL, SFT, RL, ...: the checkpoint of step 2 comes before an SFT step, at which scalars of RL keep their value."""
    save = Copying(tmp_path / "whole" / "saved", every_n_train_steps=2, save_top_k=-1, filename="{step}")
    interleaved = InterleavedSFT(rl_steps=2, sft_steps=1)
    expected = fit(cgpo(), tmp_path / "whole", interleaved, save)
    whole, killed = scalars(tmp_path / "whole"), scalars(tmp_path / "whole-4")
    for name, values in whole.items():
        assert killed.get(name, []) == [(step, value) for step, value in values if step < 4], name
    assert "train/seconds/update" in killed
    folder = tmp_path / "whole-4"  # of which step=2.ckpt is taken, so that steps are done twice
    again = InterleavedSFT(rl_steps=2, sft_steps=1)
    went_on = fit(cgpo(), folder, again, checkpoint=folder / "saved" / "step=2.ckpt")
    assert all(torch.equal(weight, went_on[name]) for name, weight in expected.items())
    shown = scalars(folder)
    assert shown.keys() == whole.keys()
    for name, values in whole.items():
        if "second" in name:  # a time
            assert [step for step, _ in shown[name]] == [step for step, _ in values]
        else:
            assert shown[name] == values, name


def test_dropout_draws_on_where_it_was(tmp_path):
    """Epochs of 4 steps, a checkpoint after the third."""
    module = sft(policy=DROPPING)
    save = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    expected = fit(module, tmp_path / "whole", save, streams=["sft"])
    torch.rand(5)  # whatever else a process draws
    other = sft(policy=DROPPING)
    torch.manual_seed(77)
    went_on = fit(other, tmp_path / "again", checkpoint=tmp_path / "step=3.ckpt", streams=["sft"])
    assert all(torch.equal(weight, went_on[name]) for name, weight in expected.items())


def test_steps_draw_apart_from_each_other_and_ranks_do(tmp_path):
    from lightning_sal.modules.exact_resume import ExactResume

    class Fake:
        global_step = global_rank = 0

    def drawn(step, rank):
        callback, run = ExactResume(), Fake()
        callback.seed, run.global_step, run.global_rank = 5, step, rank
        callback.on_train_batch_start(run, None)
        return float(torch.rand(()))

    values = [drawn(step, rank) for step in range(3) for rank in range(3)]
    assert len(set(values)) == 9
    assert drawn(1, 2) == values[5]


def test_rl_refuses_dropout():
    with pytest.raises(ValueError, match=r"policy\.lora\.dropout 0\.5 must be 0 in RL"):
        cgpo(policy=DROPPING)
