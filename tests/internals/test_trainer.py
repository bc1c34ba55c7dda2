"""Each test says in words what moved in Lightning or TensorBoard when it fails."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from tensorboard.compat.proto.event_pb2 import Event

from lightning_sal.internals.trainer import event_file, logged_so_far, saves_in_shards, set_step


class Notes(L.Callback):
    def __init__(self):
        self.first, self.logged = None, []

    def on_train_start(self, trainer, pl_module):
        set_step(trainer, 40, 0)

    def on_train_batch_start(self, trainer, pl_module, *_):
        self.first = trainer.global_step if self.first is None else self.first
        pl_module.log("train/one", torch.tensor(3.0))

    def on_train_batch_end(self, trainer, *_):
        self.logged.append(logged_so_far(trainer))


def test_a_fit_begins_at_the_step_that_is_set_and_what_is_logged_is_seen(tmp_path):
    notes = Notes()
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False, limit_train_batches=2,
        max_epochs=1, limit_val_batches=0, callbacks=[notes], enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(BoringModel())
    assert (notes.first, trainer.global_step) == (40, 42), "Lightning counts optimisation steps elsewhere"
    assert [float(logged["train/one"]) for logged in notes.logged] == [3.0, 3.0], (
        "Lightning keeps logged values elsewhere"
    )


def test_a_strategy_tells_whether_it_saves_in_shards():
    assert saves_in_shards(ModelParallelStrategy()), "ModelParallelStrategy names its way of saving otherwise"
    assert not saves_in_shards(ModelParallelStrategy(save_distributed_checkpoint=False))
    assert not saves_in_shards(SingleDeviceStrategy())


def test_an_event_of_any_kind_reaches_the_file_of_a_logger(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    event_file(logger).add_event(Event(file_version="a note"), 7)
    logger.save()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("events*"))
    assert b"a note" in written, "SummaryWriter keeps its file elsewhere"
