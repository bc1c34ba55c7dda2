"""Results of `test` as files: a row an image, a summary, and the failures to look at."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from lightning_sal.evaluation.results import Results, ResultsWriter
from lightning_sal.pages.drawing import panel
from lightning_sal.samples import Prediction
from lightning_sal.tasks import TASKS


class EvaluationResults(L.Callback):
    """Write what `test` finds to a folder that `lightning-sal table` reads.

    `<benchmark>.csv` has a row an image, `summary.json` the metrics over all images of all ranks, and `failures.html` the
    worst images of each benchmark with truth, prediction and words. A folder that holds results is refused before any
    work.

    What it asks of others, and nothing more: `test_step` returns a row of values an image (with `benchmark`, `key` and
    `image`) and a list of `lightning_sal.samples.Prediction`, whose images with masks are those rows in their order; the
    module logs `test/<name>/<metric>` by the end of the epoch. A name is that of a task, or of a benchmark in the
    datamodule's `benchmarks`, name -> task, where it has them.

    Args:
        folder: Where to write.
        name: Of the method, in tables.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = Path(folder), name

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ResultsWriter.prepare(self.folder)  # by every process, so that none is left waiting where it is refused
        trainer.strategy.barrier("results prepared")
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.tasks = {task: task for task in TASKS} | dict(getattr(data, "benchmarks", None) or {})
        self.writer = ResultsWriter(self.folder, trainer.global_rank, trainer.world_size)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        rows, predictions = outputs
        images = [(p, number) for p in predictions for number in range(len(p.group.masks or ()))]
        for row, (prediction, number) in zip(rows, images, strict=True):
            self.writer.add(row, partial(_picture, prediction, number))

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
        self.writer.finish(results)
        print(f"Results: {self.folder}, failures: {self.folder / 'failures.html'}")


def _picture(prediction: Prediction, number: int) -> Any:
    group = prediction.group
    truth = None if group.masks is None else group.masks[number : number + 1]
    return panel(group.images[number : number + 1], truth, prediction.masks[number : number + 1], prediction.text)
