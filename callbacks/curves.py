"""How a training goes, as one picture in which each line has a colour of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from lightning_sal.callbacks.dashboard import RESPONSES, ROLLOUTS, validation
from lightning_sal.pages.curves import Lines, figure
from lightning_sal.pages.loggers import add_figure

HELD_OUT = "val/"


class Curves(L.Callback):
    """Every few steps, draw the curves so far as one picture, `curves`: held-out samples first, then the rollouts.

    TensorBoard's own charts give all lines of a run one colour, and hide their names until one asks. Here each line has a
    colour of its own, beside its name. What is drawn are the scalars that modules and callbacks log by `self.log`, at the
    steps at which loggers get them; a chart that none belongs to is left out. The picture goes to loggers of TensorBoard,
    W&B and MLflow. The curves so far are saved in checkpoints.

    What it asks of others, and nothing more: names of scalars that the charts know, by default those of
    docs/tensorboard.md; what is logged in validation begins with `val/`, and nothing else does.

    Args:
        every_n_steps: Optimisation steps from one picture to the next, >= 1; the last one is drawn at the end of the fit.
        charts: Title -> regular expressions of names, each matched from its beginning; null for what the `Dashboard` shows
            of validation and of rollouts.
    """

    def __init__(self, every_n_steps: int = 50, charts: dict[str, list[str]] | None = None) -> None:
        if every_n_steps < 1:
            raise ValueError("Curves: every_n_steps must be at least 1")
        self.every_n_steps, self.charts = every_n_steps, charts
        self._lines: Lines = {}
        self._drawn: int | None = None

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        held_out = {f"Held-out: {title.lower()}": names for title, names in {**validation(), **RESPONSES}.items()}
        self._charts: Mapping[str, list[str]] = {**held_out, **ROLLOUTS} if self.charts is None else self.charts
        self._names = re.compile("|".join(f"(?:{name})" for names in self._charts.values() for name in names))
        self._log_every = max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % self._log_every == 0:
            self._keep(trainer, trainer.global_step - 1, held_out=False)
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._keep(trainer, trainer.global_step - 1, held_out=True)  # as loggers get them

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._draw(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self._lines}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._lines = state_dict["lines"]

    def _keep(self, trainer: L.Trainer, step: int, held_out: bool) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(HELD_OUT) == held_out and self._names.match(name):
                self._lines.setdefault(name, []).append((step, float(value)))

    def _draw(self, trainer: L.Trainer) -> None:
        if self._lines and trainer.is_global_zero and trainer.global_step != self._drawn:
            self._drawn = trainer.global_step
            add_figure(trainer, "curves", partial(figure, self._lines, self._charts), trainer.global_step - 1)
