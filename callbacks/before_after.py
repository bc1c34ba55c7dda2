"""What a run changed: the same held-out samples before and after, beside what SFT alone would have made of them."""

from __future__ import annotations

import copy
import sys
import time
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning as L

from lightning_sal.evaluation.comparison import (
    Sample,
    evaluate,
    restore,
    summary,
    table,
    tasks_of,
    train_supervised,
    trainable_state,
    write_arms,
)
from lightning_sal.evaluation.comparison_figure import figure, markdown
from lightning_sal.files.writing import whole
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.drawing import gallery, panel
from lightning_sal.pages.loggers import add_figure, boards

LOGGED = ("exact", "correctness")


class BeforeAfter(L.Callback):
    """Evaluate greedy responses before and after a fit, print them side by side, and draw a gallery.

    With `control_steps`, a control is trained first from the same start: SFT alone, for as many SFT steps as the run has,
    on the same batches, with an optimiser of its own; then the start's weights come back. With `equal_time`, a second
    control follows the run: SFT alone for as long as the run took. Either leaves the run as it would be without it.

    `samples.jsonl` holds each held-out sample of each arm, for `lightning-sal compare`. Loggers get the figure and the
    text `before_after`, of all means of all arms, and as scalars `before_after/exact` and `before_after/correctness`, at
    the first step and at the last.

    What it asks of others: the module is a `lightning_sal.modules` module (or offers its `evaluate` and, for a control, its
    `sft_losses` and `configure_optimizers`), the datamodule gives annotated samples by `val_dataloader()` and, for a
    control, has its SFT batches in `streams["sft"]`. One process only.

    Args:
        folder: Folder for `gallery.png` and `samples.jsonl`; a number is appended where it exists, so nothing is
            overwritten.
        panels: Samples in the gallery, taken in turn from the tasks, those whose answer changed first.
        control_steps: SFT steps of the control; null for no control.
        equal_time: Whether SFT alone is also trained for the wall time of the run.
    """

    def __init__(
        self,
        folder: Path = Path("runs/before_after"),
        panels: int = 6,
        control_steps: int | None = None,
        equal_time: bool = False,
    ) -> None:
        self.folder, self.panels = folder, panels
        self.control_steps, self.equal_time = control_steps, equal_time
        self.arms: dict[str, list[Sample]] = {}
        self.before: list[Prediction] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            raise ValueError("BeforeAfter compares within one process: use trainer.devices=1, or leave it out")
        if trainer.global_step:  # a run that goes on: its start is gone
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.arms["start"], self.before = evaluate(pl_module, data.val_dataloader())
        self._log(trainer, self.arms["start"])
        self.start = trainable_state(pl_module)
        if self.control_steps is not None:
            self._control(f"SFT only, {self.control_steps} steps", trainer, pl_module, steps=self.control_steps)
        self.started = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.arms:
            return
        seconds = time.perf_counter() - self.started
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.arms[type(pl_module).__name__], after = evaluate(pl_module, data.val_dataloader())
        if self.equal_time:
            self._control("SFT only, equal time", trainer, pl_module, seconds=seconds)
        self._make_folder()
        self._draw(after)
        write_arms(self.arms, self.folder / "samples.jsonl")
        self._log(trainer, self.arms[type(pl_module).__name__])
        add_figure(trainer, "before_after", partial(figure, self.arms), trainer.global_step)
        for board in boards(trainer):
            board.add_text("before_after", markdown(self.arms), trainer.global_step)
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(table(self.arms, f"{len(after)} held-out samples, greedy responses"))
        console.print(f"Gallery: {self.folder / 'gallery.png'}", soft_wrap=True)
        for logger in trainer.loggers:
            if logger.save_dir:
                console.print(f"TensorBoard: uv run tensorboard --logdir {logger.save_dir}", soft_wrap=True)

    def _log(self, trainer: L.Trainer, samples: list[Sample]) -> None:
        """Two numbers at the start and at the end, which make a line each and a column of the HParams tab."""
        values = {f"before_after/{key}": value for key, value in summary(samples).items() if key in LOGGED}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def _control(self, name: str, trainer: L.Trainer, module: Any, **bound: Any) -> None:
        """Train SFT alone from the start, evaluate it, and put the weights of the moment back."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        current = trainable_state(module)
        restore(module, self.start)
        stream = copy.copy(data.streams["sft"])  # the run's own keeps its place
        stream.load_state_dict({"position": 0})
        train_supervised(module, stream, clip=trainer.gradient_clip_val, **bound)
        self.arms[name], _ = evaluate(module, data.val_dataloader())
        restore(module, current)
        module.zero_grad()

    def _make_folder(self) -> None:
        number, base = 1, self.folder
        while self.folder.exists():
            number += 1
            self.folder = base.with_name(f"{base.name}_{number}")
        self.folder.mkdir(parents=True)

    def _draw(self, after: list[Prediction]) -> None:
        pairs = list(zip(self.before, after, strict=True))
        pairs.sort(key=lambda pair: pair[0].answer.fields() == pair[1].answer.fields())  # what changed comes first
        tasks = tasks_of(self.arms["start"])
        queues: dict[str, list[tuple[Prediction, Prediction]]] = {task: [] for task in tasks}
        for pair in pairs:
            queues[pair[0].group.task].append(pair)
        chosen = [pair for turn in zip_longest(*queues.values()) for pair in turn if pair][: self.panels]
        rows = [
            panel(p.group.images, p.group.masks, p.masks, p.text, title=f"{p.group.task} {p.group.key}, {when}")
            for pair in chosen
            for when, p in zip(("before", "after"), pair, strict=True)
        ]
        with whole(self.folder / "gallery.png") as part:
            gallery(rows, "Held-out scenes before and after").save(part, "PNG")
