"""Figures of a training in TensorBoard, of which nothing stays in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger


def add_figure(trainer: Any, name: str, draw: Callable[[], Any], step: int) -> None:
    """Add a figure to each TensorBoard logger, and let go of it.

    The parts of a matplotlib figure refer to each other, so that only a full pass of the garbage collector frees them,
    and in a process with so many objects Python makes one every few hundred steps. Here the objects that were there
    before are put aside, and a pass over those that are new takes no time.

    Args:
        trainer: Has the loggers.
        name: Of the figure.
        draw: Makes the `matplotlib.figure.Figure`, not by pyplot, which would keep it.
        step: As the scalars of the step are counted.
    """
    boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    gc.collect(1)
    gc.freeze()
    try:
        for board in boards:
            board.add_figure(name, draw(), step)
        gc.collect()
    finally:
        gc.unfreeze()
