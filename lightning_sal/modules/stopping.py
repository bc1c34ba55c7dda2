"""How a fit ends, a checkpoint is left: after the last step, after SIGTERM, and after Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sal.errors import TERMINATED, Terminated
from lightning_sal.internals.signals import end_at_once


class StopAtSigterm(L.Callback):
    """Where a process is asked to end, end the fit after the step at hand, on all ranks, with a checkpoint; a validation
    between steps ends after the batch at hand. Where it is asked again, it ends at once.

    The checkpoint is `last.ckpt`, or what `ModelCheckpoint` names its last one, in the folder of the trainer's
    `ModelCheckpoint`; without one of those, nothing is written. Whichever rank the signal reaches, all end at the same
    step. Before the first step and after the last nothing is waited for. The signal with which SLURM announces that a job
    will be requeued stays Lightning's.

    Lightning's own handler talks to the other ranks from within the signal, in the midst of what they do, and then ends
    with exit code 0.

    The modules bring it along by `configure_callbacks`; no trainer needs to name it.
    """

    def __init__(self) -> None:
        self._stepping = self._asked = False

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def on_train_batch_start(self, *_: Any) -> None:
        self._stepping = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._end_if_asked(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._stepping:
            self._end_if_asked(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        epochs = trainer.max_epochs or -1
        over = 0 < trainer.max_steps <= trainer.global_step or 0 < epochs <= trainer.current_epoch + 1
        self._stepping = not (over or trainer.should_stop)

    def _end_if_asked(self, trainer: L.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            outcome = save_last(trainer)
            if trainer.is_global_zero:
                print(f"lightning: terminated after step {trainer.global_step}{outcome}", file=sys.stderr, flush=True)
            # Where Lightning started the other ranks, it kills the first one as soon as another has failed.
            raise SystemExit(0 if trainer.local_rank else TERMINATED)

    def _listen(self) -> None:
        """Take the signal over; Lightning puts back at the end what was there before the fit."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, *_: Any) -> None:
        if not self._stepping:
            raise Terminated
        if self._asked:
            end_at_once(TERMINATED)
        self._asked = True


class SaveAtEnd(L.Callback):
    """Where a trainer writes checkpoints, write one of the last step, whatever the interval between them.

    After Ctrl-C the last step is the last whole one: what the next had begun is left out, and the data stand where it began.
    With several processes Ctrl-C leaves the checkpoints that were written before, since others cannot be waited for.

    It is named as that of `StopAtSigterm`. The modules bring it along by `configure_callbacks`; no trainer needs to name it.
    """

    def __init__(self) -> None:
        self._saved = 0  # the step of the last checkpoint that anything has written
        self._fed: tuple[int, dict[str, Any]] = (0, {})  # after a step, where its data stood

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved = trainer.global_step
        self._keep_place(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._keep_place(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        self._saved = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._saved != trainer.global_step and trainer.checkpoint_callbacks:
            save_last(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt) or trainer.world_size > 1 or not trainer.checkpoint_callbacks:
            return
        if self._saved == trainer.global_step:
            return
        step, place = self._fed
        if place and step == trainer.global_step:
            trainer.datamodule.load_state_dict(place)  # type: ignore[attr-defined]
        outcome = save_last(trainer)
        print(f"lightning: stopped after step {trainer.global_step}{outcome}", file=sys.stderr, flush=True)

    def _keep_place(self, trainer: L.Trainer) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._fed = (trainer.global_step, {} if data is None else data.state_dict())


def save_last(trainer: L.Trainer) -> str:
    """Write the checkpoint; returns what to say of it."""
    savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    if not savers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return ", without a checkpoint, since the trainer writes none"
    saver = savers[0]
    path = saver.last_model_path or trainer.strategy.broadcast(_free(Path(saver.dirpath or ".")))
    saver.last_model_path = path  # the next one replaces it, also in a run that goes on
    trainer.save_checkpoint(path, weights_only=False)
    return f": the same command with --ckpt_path {path} goes on from there"


def _free(folder: Path) -> str:
    """A name of ModelCheckpoint's for its last checkpoint, which none has yet."""
    number, path = 0, folder / "last.ckpt"
    while path.exists():
        number += 1
        path = folder / f"last-v{number}.ckpt"
    return str(path)
