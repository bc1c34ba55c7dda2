"""A progress bar that shows how the reward does, and short lines where there is no terminal."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from lightning_sal.samples import Phased

FIRST = ("phase", "reward", "conf", "loss")


class RolloutProgressBar(RichProgressBar):
    """Rich progress bar with phase, reward, confidence and loss.

    Where the output is no terminal (a file, a pipe, CI) there is no bar, but a line every `log_every` steps:

        step 50/400 | rl | reward 0.912 | conf 0.873 | loss 0.034 | 0:01:12

    What it asks of others, and nothing more: the module logs what is to be shown with `prog_bar=True`, under names
    of which "train/" is dropped; a batch of interleaved training is a `Phased` (otherwise no phase is shown). On an SFT
    step reward and confidence are those of the last RL step.

    Args:
        log_every: Steps from one line to the next where there is no terminal; 0 for none.
        **kwargs: As for `lightning.pytorch.callbacks.RichProgressBar`.
    """

    def __init__(self, log_every: int = 25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if log_every < 0:
            raise ValueError("RolloutProgressBar: log_every must be at least 0")
        self.log_every = log_every
        self._phase: str | None = None
        console = Console(**self._console_kwargs)
        self._terminal = console.is_terminal or console.is_jupyter

    @property
    def is_enabled(self) -> bool:
        return self._terminal and super().is_enabled

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started, self._lines = time.monotonic(), self._line_number(trainer)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any) -> None:
        self._phase = batch.phase if isinstance(batch, Phased) else None

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Name -> value of what is shown, the phase first."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        shown = {name.removeprefix("train/"): value for name, value in metrics.items()}
        if self._phase is not None:
            shown["phase"] = self._phase
        return {name: shown[name] for name in sorted(shown, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        number = self._line_number(trainer)
        if number != self._lines and not self._terminal and super().is_enabled:
            self._lines = number
            print(self._line(trainer, self.get_metrics(trainer, pl_module)), flush=True)

    def _line_number(self, trainer: L.Trainer) -> int:
        return trainer.global_step // self.log_every if self.log_every else 0

    def _line(self, trainer: L.Trainer, metrics: dict[str, Any]) -> str:
        place = f"{trainer.global_step}/{trainer.max_steps}" if trainer.max_steps > 0 else str(trainer.global_step)
        parts = [value if name == "phase" else f"{name} {value:.3f}" for name, value in metrics.items()]
        elapsed = timedelta(seconds=round(time.monotonic() - self._started))
        return " | ".join([f"step {place}", *parts, str(elapsed)])
