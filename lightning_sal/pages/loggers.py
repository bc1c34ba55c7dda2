"""Pictures, figures and texts of a training, in each logger that can show them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import singledispatch
from typing import Any, Protocol

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image


class Board(Protocol):
    """Where a logger shows what is no number."""

    def add_image(self, name: str, picture: Image.Image, step: int) -> None:
        """Show a picture under a name, which may have slashes, beside those of other steps."""

    def add_text(self, name: str, text: str, step: int) -> None:
        """Show a text in Markdown, likewise; a picture may have the same name."""


@singledispatch
def board_of(logger: Any) -> Board | None:
    """The board of a logger, or None where it has none, as a `CSVLogger`. For another kind: `@board_of.register`."""
    return None


def boards(trainer: Any) -> list[Board]:
    """The boards of all loggers of a trainer."""
    return [board for logger in trainer.loggers if (board := board_of(logger)) is not None]


def add_figure(trainer: Any, name: str, draw: Callable[[], Any], step: int) -> None:
    """Add a figure to the board of each logger, drawn once where there is any, and let go of it.

    The parts of a matplotlib figure refer to each other, so that only a full pass of the garbage collector frees them,
    and in a process with so many objects Python makes one every few hundred steps. Here the objects that were there
    before are put aside, and a pass over those that are new takes no time.

    Args:
        trainer: Has the loggers.
        name: Of the figure.
        draw: Makes the `matplotlib.figure.Figure`, not by pyplot, which would keep it.
        step: As the scalars of the step are counted.
    """
    found = boards(trainer)
    if not found:
        return
    gc.collect(1)
    gc.freeze()
    try:
        picture = _pixels(draw())
        gc.collect()
    finally:
        gc.unfreeze()
    for board in found:
        board.add_image(name, picture, step)


def _pixels(figure: Any) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


class _TensorBoard:
    def __init__(self, logger: TensorBoardLogger) -> None:
        self.writer = logger.experiment

    def add_image(self, name: str, picture: Image.Image, step: int) -> None:
        self.writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def add_text(self, name: str, text: str, step: int) -> None:
        self.writer.add_text(name, text, step)


class _Wandb:
    def __init__(self, logger: WandbLogger) -> None:
        self.logger = logger

    def add_image(self, name: str, picture: Image.Image, step: int) -> None:
        self.logger.log_image(name, [picture], step)

    def add_text(self, name: str, text: str, step: int) -> None:
        # Of one name W&B shows one kind of thing.
        self.logger.log_text(f"{name}/text", ["text"], [[text]], step=step)


class _MLflow:
    def __init__(self, logger: MLFlowLogger) -> None:
        self.client, self.run = logger.experiment, logger.run_id

    def add_image(self, name: str, picture: Image.Image, step: int) -> None:
        self.client.log_image(self.run, picture, key=name, step=step)

    def add_text(self, name: str, text: str, step: int) -> None:
        self.client.log_text(self.run, text, f"texts/{name}/step-{step:06d}.md")


board_of.register(TensorBoardLogger, _TensorBoard)
board_of.register(WandbLogger, _Wandb)
board_of.register(MLFlowLogger, _MLflow)
