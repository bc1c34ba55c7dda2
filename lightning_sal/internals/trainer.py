"""What is read or set in Lightning's trainer beside what it promises."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger


def set_step(trainer: L.Trainer, step: int, rank: int) -> None:
    """Let a fit begin as if so many optimisation steps had been taken, on a rank."""
    strategy: Any = trainer.strategy
    strategy.global_rank = rank
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step


def logged_so_far(trainer: L.Trainer) -> dict[str, Any]:
    """Name -> value of what the logger has been given in this epoch, that of the step at hand included."""
    connector: Any = trainer._logger_connector
    connector.update_train_step_metrics()
    return dict(connector.metrics["log"])


def saves_in_shards(strategy: Any) -> bool:
    """Whether a `ModelParallelStrategy` writes checkpoints as folders; False of other strategies."""
    return bool(getattr(strategy, "_save_distributed_checkpoint", False))


def event_file(logger: TensorBoardLogger) -> Any:
    """The writer below a logger, which takes events that `SummaryWriter` has no method for."""
    return logger.experiment._get_file_writer()
