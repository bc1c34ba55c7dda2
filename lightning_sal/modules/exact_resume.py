"""What a fit that goes on from a checkpoint needs to be, number for number, the one that was never stopped."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from tensorboard.compat.proto import event_pb2

from lightning_sal.files.checkpoints import WholeCheckpoints
from lightning_sal.files.writing import naming
from lightning_sal.internals.trainer import event_file, logged_so_far

Numbers = Mapping[str, Any]
events: Any = event_pb2  # whose names protobuf makes as it loads, which type checkers do not see


class ExactResume(L.Callback):
    """Keep what Lightning's checkpoints lack, and put it back.

    - Checkpoints are written whole or not at all.
    - The scalars of a step are in the log, and on the disk, before a checkpoint of that step is: Lightning logs them after
      it, so that a process that is killed between the two would lose them for good.
    - Of a run that goes on in its folder, TensorBoard shows the steps after the checkpoint once: as they are taken again.
    - A scalar that a step does not log keeps its last value in the log, also where that is of before the checkpoint.
    - The global generators of torch, NumPy and Python are seeded anew at each step, from the seed of the run, step and
      rank, so that dropout, or a reward that draws, draws what it would have drawn.

    The modules bring it along by `configure_callbacks`; no trainer needs to name it.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self._last: Numbers = {}
        self._kept: Numbers = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one that the user chose
            trainer.strategy.checkpoint_io = WholeCheckpoints()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seed = trainer.strategy.broadcast(torch.initial_seed() if self.seed is None else self.seed)
        for logger in trainer.loggers:
            logger.log_metrics = _Once(logger)
            if trainer.global_step and trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                # What SummaryWriter writes with its `purge_step`.
                event = events.Event(session_log=events.SessionLog(status=events.SessionLog.START))
                event_file(logger).add_event(event, trainer.global_step)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        entropy = (
            self.seed or 0,
            trainer.global_step,
            trainer.global_rank,
            1,
        )  # 1: apart from what sampling is seeded with
        state = np.random.SeedSequence(entropy).generate_state(2)
        random.seed(int(state[0]))
        np.random.seed(state[0])  # noqa: NPY002  the global generator is what others draw from
        torch.manual_seed(int(state[1]))
        for name, value in self._kept.items():
            type(pl_module).log(pl_module, name, value)  # past callbacks that watch what the step itself logs
        self._kept = {}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        logged = logged_so_far(trainer)
        self._last = {} if trainer.is_last_batch else logged  # an epoch forgets those before it

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        for logger in trainer.loggers:
            with naming(Path(logger.save_dir or "."), "the log"):
                logger.save()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger.log_metrics, _Once):
                logger.log_metrics = logger.log_metrics.log

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "last": {name: float(value) for name, value in self._last.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed, self._kept = state_dict["seed"], state_dict["last"]


class _Once:
    """`log_metrics` of a logger, but for what it has logged of the same step already."""

    def __init__(self, logger: Logger) -> None:
        self.log, self.folder = logger.log_metrics, Path(logger.save_dir or ".")
        self.step: int | None = None
        self.logged: dict[str, str] = {}

    def __call__(self, metrics: Numbers, step: int | None = None) -> None:
        if step != self.step:
            self.step, self.logged = step, {}
        new = {name: value for name, value in metrics.items() if repr(value) != self.logged.get(name)}  # NaN is NaN
        self.logged |= {name: repr(value) for name, value in new.items()}
        if new:
            with naming(self.folder, "the log"):
                self.log(metrics=new, step=step)
