"""Results of `test` as files: a row an image, a summary, and the failures to look at."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L

from lightning_sal.callbacks.ranks import require_shared
from lightning_sal.evaluation.metrics import Row
from lightning_sal.evaluation.results import Results, ResultsWriter, holds_results, measures_of
from lightning_sal.files.writing import numbered
from lightning_sal.pages.map_pictures import Pictures
from lightning_sal.pages.pictures import of_masks, small_masks
from lightning_sal.tasks import get_task


class EvaluationResults(L.Callback):
    """Write what `test` finds to a folder that `lightning-sal table` reads.

    `<benchmark>.csv` has a row an image, `summary.json` the metrics over all images of all ranks, and `failures.html` the
    worst images of each benchmark with truth, prediction and words. `<benchmark>.masks.csv` holds the masks of every image,
    240 pixels wide, for pages that are made later. The summary says too what the responses took, in seconds, tokens and
    dollars. A folder that holds results is refused before any work, or, with `numbered`, gets a number appended.

    What it asks of others, and nothing more: the first thing that `test_step` returns is a list of
    `lightning_sal.evaluation.metrics.Row`; the module has `evaluation.tasks`, name -> task, and logs `test/<name>/<metric>`
    by the end of the epoch. If the second thing is a list of `Prediction`, their `usage` is summed up. What the module has
    as `evaluation_settings`, name -> value, such as temperature and seed, stands in the summary as well.

    Args:
        folder: Where to write. Several nodes must share it.
        name: Of the method, in tables.
        numbered: Whether a folder that holds results is left as it is, and `<folder>-2`, `<folder>-3`, ... is written.
    """

    def __init__(self, folder: Path, name: str, numbered: bool = False) -> None:
        self.folder, self.name, self.numbered = Path(folder), name, numbered
        self.written = False

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.numbered:
            free = (name for name in numbered(self.folder.name) if not holds_results(self.folder.with_name(name)))
            self.folder = self.folder.with_name(trainer.strategy.broadcast(next(free)))
        require_shared(self.folder, trainer)
        ResultsWriter.prepare(self.folder)  # by every process, so that none is left waiting where it is refused
        trainer.strategy.barrier("results prepared")

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        evaluation: Any = pl_module.evaluation  # which the module makes at the start of the test, after callbacks
        self.tasks: dict[str, str] = dict(evaluation.tasks)
        self.terms: tuple[str, ...] = getattr(evaluation, "term_names", ())
        self.writer = ResultsWriter(self.folder, self.tasks, trainer.global_rank, trainer.world_size)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        for row in outputs[0]:
            self.writer.add(row.fields, partial(_pictures, row), _masks(row))
        for prediction in chain.from_iterable(outputs[1:2]):  # one a sample, where a row is of an image
            self.writer.use(prediction.group.benchmark or prediction.group.task, prediction.usage)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.writer.close()
        trainer.strategy.barrier("results written")
        if not trainer.is_global_zero:
            return
        results = Results(self.name)
        for key, value in trainer.callback_metrics.items():
            match key.split("/"):
                case ["test", name, metric] if name in self.tasks:
                    results.tasks[name] = self.tasks[name]
                    results.metrics.setdefault(name, {})[metric] = float(value)
        settings = getattr(pl_module, "evaluation_settings", {})
        for name, task in results.tasks.items():
            if own := {**settings, **get_task(task).settings()}:
                results.settings[name] = own
        results.measures.update(measures_of(results.tasks, self.terms))
        self.writer.finish(results)
        self.written = True

    def outputs(self) -> dict[str, Path]:
        """What was written in this run."""
        return {"Results": self.folder, "Failures": self.folder / "failures.html"} if self.written else {}


def _pictures(row: Row) -> Pictures:
    prediction, group = row.prediction, row.prediction.group
    asked = [get_task(group.task).prompts(prediction.answer, image.shape[:2]) for image in group.images]
    at = slice(None) if row.image is None else slice(row.image, row.image + 1)
    return of_masks(group, prediction.masks or None, asked, at)


def _masks(row: Row) -> dict[str, str] | None:
    return None if row.image is None else small_masks(row.prediction.group, row.prediction.masks, row.image)
