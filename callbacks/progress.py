"""A progress bar that shows how the reward does, and short lines where there is no terminal."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count

from lightning_sal.internals.activity import Activity, on_terminal, output
from lightning_sal.samples import Phased

FIRST = ("phase", "reward", "conf", "loss")


class RolloutProgressBar(ProgressBar):
    """Progress bar with time left, phase, reward, confidence and loss; over the whole run, not an epoch.

    Where the output is no terminal (a file, a pipe, CI) there is no bar, but a line after the first step and then every
    `log_every` steps:

        step 50/400 | rl | reward 0.912 | conf 0.873 | loss 0.034 | 0:01:12, 0:08:24 left

    What it asks of others, and nothing more: the module logs what is to be shown with `prog_bar=True`, under names
    of which "train/" is dropped; a batch of interleaved training is a `Phased` (otherwise no phase is shown). On an SFT
    step reward and confidence are those of the last RL step. `lightning fit` and the like take it where a config names no
    progress bar.

    Args:
        log_every: Steps from one line to the next where there is no terminal; 0 for none.
    """

    def __init__(self, log_every: int = 25) -> None:
        super().__init__()
        if log_every < 0:
            raise ValueError("RolloutProgressBar: log_every must be at least 0")
        self.log_every = log_every
        self._enabled = True
        self._shown: dict[str, Activity] = {}  # what there is to show -> what shows it
        self._phase: str | None = None
        self._lines: int | None = None  # how many lines the steps so far are worth

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print beside the bar, as `LightningModule.print` does."""
        if self._enabled:
            output().print(*args, **kwargs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._begin("model", "Loading the model")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end("model")
        if self._enabled:
            sizes = (
                [p.numel() for p in pl_module.parameters()],
                [p.numel() for p in pl_module.parameters() if p.requires_grad],
            )
            total, trained = (get_human_readable_count(sum(each)) for each in sizes)
            name, device = type(pl_module).__name__, trainer.strategy.root_device
            print(f"{name} on {device}: {total} weights, {trained} trained", flush=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if "training" not in self._shown:
            self._lines = None
            steps = trainer.estimated_stepping_batches
            total = steps if math.isfinite(steps) and steps > 0 else None
            self._begin("training", "Training", total, "step", done=trainer.global_step, kept=True, lines=False)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any) -> None:
        self._phase = batch.phase if isinstance(batch, Phased) else None

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        training = self._shown.get("training")
        if training is None:
            return
        note = " | ".join(self._values(trainer, pl_module))
        training.to(trainer.global_step, note)
        if self._enabled and self.log_every and not on_terminal():
            number = trainer.global_step // self.log_every
            if number != self._lines or trainer.global_step == training.total:
                print(" | ".join(filter(None, (training.count(), note, training.times()))), flush=True)
            self._lines = number
        if training.total is not None and trainer.global_step >= training.total:
            training.end()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end("training")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        what = "Trying the validation" if trainer.sanity_checking else "Validation"
        self._begin_batches(
            what, trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        )

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_batches("Test", trainer.num_test_batches)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_batches("Prediction", trainer.num_predict_batches)

    def on_validation_batch_end(self, *_: Any) -> None:
        if batches := self._shown.get("batches"):
            batches.advance()

    def on_test_batch_end(self, *arguments: Any) -> None:
        self.on_validation_batch_end(*arguments)

    def on_predict_batch_end(self, *arguments: Any) -> None:
        self.on_validation_batch_end(*arguments)

    def on_validation_end(self, *_: Any) -> None:
        self._end("batches")

    def on_test_end(self, *_: Any) -> None:
        self._end("batches")

    def on_predict_end(self, *_: Any) -> None:
        self._end("batches")

    def on_exception(self, *_: Any) -> None:
        for name in list(self._shown):
            self._end(name)

    def teardown(self, *_: Any, **__: Any) -> None:
        self.on_exception()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Name -> value of what is shown, the phase first."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        shown: dict[str, Any] = {name.removeprefix("train/"): value for name, value in metrics.items()}
        if self._phase is not None:
            shown["phase"] = self._phase
        return {name: shown[name] for name in sorted(shown, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))}

    def _values(self, trainer: L.Trainer, module: L.LightningModule) -> list[str]:
        shown = self.get_metrics(trainer, module)
        return [str(value) if name == "phase" else f"{name} {float(value):.3f}" for name, value in shown.items()]

    def _begin(self, name: str, *what: Any, **options: Any) -> None:
        if self._enabled:
            self._end(name)
            self._shown[name] = Activity(*what, **options)

    def _begin_batches(self, what: str, numbers: Any) -> None:
        self._end("model")
        total = sum(numbers) if isinstance(numbers, list) else numbers
        kept = self.trainer.state.fn != "fit"
        self._begin("batches", what, total if math.isfinite(total) else None, "batch", kept=kept)

    def _end(self, name: str) -> None:
        if activity := self._shown.pop(name, None):
            activity.end()
