"""What a run changed: the same held-out samples before and after, beside what SFT alone would have made of them."""

from __future__ import annotations

import copy
import time
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning as L

from lightning_sal.callbacks.interleaved_sft import InterleavedSFT
from lightning_sal.callbacks.ranks import over_ranks
from lightning_sal.evaluation.comparison import (
    Sample,
    differences,
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
from lightning_sal.internals.activity import doing, followed, output
from lightning_sal.pages.drawing import gallery, panel
from lightning_sal.pages.loggers import add_figure, boards

LOGGED = ("exact", "correctness")


class BeforeAfter(L.Callback):
    """Evaluate greedy responses before and after a fit, print them side by side, and draw a gallery.

    With `control`, a control is trained first from the same start: SFT alone, for as many SFT steps as `InterleavedSFT` will
    make in the run, on the same batches, with an optimiser of its own; then the start's weights come back. With
    `equal_time`, a second control follows the run: SFT alone for as long as the run took. Either leaves the run as it would
    be without it.

    `samples.jsonl` holds each held-out sample of each arm, for `lightning-sal compare`. Loggers get the figure and the
    text `before_after`, of all means of all arms, and as scalars `before_after/exact` and `before_after/correctness`, at
    the first step and at the last.

    What it asks of others: the module is a `lightning_sal.modules` module (or offers its `evaluate` and, for a control, its
    `sft_losses` and `configure_optimizers`), the datamodule gives annotated samples by `val_dataloader()` and, for a
    control, has its SFT batches in `streams["sft"]`. Several processes share the samples, and the first draws the gallery of
    its own; a control needs one process.

    Args:
        folder: Folder for `gallery.png` and `samples.jsonl`; a number is appended where it exists, so nothing is
            overwritten.
        panels: Samples in the gallery, taken in turn from the tasks, those whose answer changed first.
        control: Whether SFT alone is trained first, for the SFT steps of the run.
        equal_time: Whether SFT alone is also trained for the wall time of the run.
    """

    def __init__(
        self,
        folder: Path = Path("runs/before_after"),
        panels: int = 6,
        control: bool = False,
        equal_time: bool = False,
    ) -> None:
        self.folder, self.panels = folder, panels
        self.control, self.equal_time = control, equal_time
        self.arms: dict[str, list[Sample]] = {}
        self.before: list[Prediction] = []
        self.written = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1 and (self.control or self.equal_time):
            raise ValueError("BeforeAfter trains its controls in one process: use trainer.devices=1, or leave them out")
        if trainer.global_step:  # a run that goes on: its start is gone
            return
        self.arms["start"], self.before = _evaluated(trainer, pl_module, "Before training")
        self._log(trainer, self.arms["start"])
        self.start = trainable_state(pl_module)
        if self.control and (steps := sft_steps(trainer, pl_module)):
            self._control(f"SFT only, {steps} steps", trainer, pl_module, steps=steps)
        self.started = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.arms:
            return
        seconds = time.perf_counter() - self.started
        self.arms[type(pl_module).__name__], after = _evaluated(trainer, pl_module, "After training")
        if self.equal_time:
            self._control("SFT only, equal time", trainer, pl_module, seconds=seconds)
        if not trainer.is_global_zero:
            return
        self._make_folder()
        with doing("Drawing the gallery"):
            self._draw(after)
        write_arms(self.arms, self.folder / "samples.jsonl")
        self.written = True
        self._log(trainer, self.arms[type(pl_module).__name__])
        add_figure(trainer, "before_after", partial(figure, self.arms), trainer.global_step)
        for board in boards(trainer):
            board.add_text("before_after", markdown(self.arms), trainer.global_step)
        console = output()
        console.print(table(self.arms, f"{len(self.arms['start'])} held-out samples, greedy responses"))
        console.print(differences(self.arms, type(pl_module).__name__))

    def outputs(self) -> dict[str, Path]:
        """What was written in this run."""
        files = {"Gallery": self.folder / "gallery.png", "Held-out samples": self.folder / "samples.jsonl"}
        return files if self.written else {}

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
        try:
            train_supervised(module, stream, clip=trainer.gradient_clip_val, what=name, **bound)
            self.arms[name], _ = _evaluated(trainer, module, "After SFT only")
        finally:  # after Ctrl-C too, which saves the weights of the run
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


def _evaluated(trainer: L.Trainer, module: Any, what: str) -> tuple[list[Sample], list[Prediction]]:
    """The held-out samples of all processes, and the predictions of this one."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    samples, predictions = evaluate(module, followed(data.val_dataloader(), what, "batch"))
    if not (found := over_ranks(samples)):
        raise ValueError(
            "BeforeAfter: there is no held-out sample to compare: give the data a `val`, or `held_out`, or take it out"
        )
    return found, predictions


def sft_steps(trainer: L.Trainer, module: Any) -> int:
    """The SFT steps that `InterleavedSFT` makes in a run from its first step to its last.

    Raises:
        ValueError: If there is no such schedule, or the run has no end.
    """
    schedules = [callback for callback in trainer.callbacks if isinstance(callback, InterleavedSFT)]  # type: ignore[attr-defined]
    if not schedules:
        raise ValueError("BeforeAfter: control repeats the SFT steps of InterleavedSFT: add it, or leave control out")
    total = trainer.estimated_stepping_batches
    if total in (-1, float("inf")):
        raise ValueError("BeforeAfter: control needs to know how long the run is: set trainer.max_steps")
    batch = step = found = 0
    while step < total:
        is_sft = schedules[0].phase(batch) == "sft"
        step += 1 if is_sft else getattr(module, "updates_per_rollout", 1)
        found, batch = found + is_sft, batch + 1
    return found
