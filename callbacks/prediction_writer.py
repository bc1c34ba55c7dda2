"""Predictions as files: masks, overlays, and a JSONL that says what belongs together."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning as L

from lightning_sal.callbacks.ranks import require_shared
from lightning_sal.files.writing import numbered, whole
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.prediction_files import append, delete_listed, write


class PredictionWriter(L.Callback):
    """Write masks, overlays and words of `predict` or `test` to a folder.

    For each image, at its own size: a mask `<name>.png` (0 and 255), or where the task's masks are instances one
    `<name>_<i>.png` each, from 0, and an overlay `<name>_overlay.png` with each expression in its colour. The name is that
    of the photograph without its suffix, or the group's key where it came from no file; where it is taken, a number is
    appended, so that no file is ever overwritten. For each group a line in `predictions.jsonl`, whose fields
    `lightning_sal.pages.prediction_files` lists; `benchmark` is empty but in the test of several. `lightning-sal score`
    takes the folder as predictions. Each line is written once its files are there. Several processes write to parts
    `predictions-<rank>.jsonl`, which the first one joins at the end; a run that was stopped leaves the lines it got to.

    What it asks of others, and nothing more: the module's `predict_step` returns a list of
    `lightning_sal.inference.responses.Prediction`, and its `test_step` a pair of anything and such a list. Run `predict`
    with `return_predictions=False` to keep none of them in memory.

    Args:
        output_dir: The folder; made where it does not exist. Several nodes must share it.
        overwrite: Whether a folder that holds predictions is taken: the files that its JSONL lists are deleted first.
            Without it such a folder is refused before any work.
    """

    def __init__(self, output_dir: Path, overwrite: bool = False) -> None:
        self.folder, self.overwrite = Path(output_dir), overwrite

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage not in ("predict", "test"):
            return
        require_shared(self.folder, trainer)
        old = _lists(self.folder)
        if old and not self.overwrite:
            raise FileExistsError(
                f"{old[0]}: predictions are there already; name another folder or set overwrite: true"
            )
        trainer.strategy.barrier("predictions looked for")  # no process may start to write before all have looked
        if trainer.is_global_zero:
            for path in old:
                delete_listed(path)
        trainer.strategy.barrier("predictions deleted")
        rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
        self._list = self.folder / f"predictions{rank}.jsonl"
        self._list.touch(exist_ok=False)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if not isinstance(outputs, list) or not all(isinstance(output, Prediction) for output in outputs):
            raise TypeError(
                f"PredictionWriter: {type(pl_module).__name__}.predict_step must return a list of Prediction, "
                f"not {type(outputs).__name__}"
            )
        for prediction in outputs:
            fields = write(self.folder, prediction, partial(claim, self.folder))
            append(self._list, json.dumps(fields, allow_nan=False))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self.on_predict_batch_end(trainer, pl_module, outputs[1], batch, batch_idx)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_predict_end(trainer, pl_module)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.strategy.barrier("predictions written")
        if not trainer.is_global_zero:
            return
        path = self.folder / "predictions.jsonl"
        if trainer.world_size > 1:
            _join([self.folder / f"predictions-{rank}.jsonl" for rank in range(trainer.world_size)], path)
        number = len(path.read_text(encoding="utf-8").splitlines())
        print(f"{number} predictions: {path}, with masks and overlays beside it")


def claim(folder: Path, stem: str, endings: Sequence[str]) -> tuple[list[Path], Path]:
    """New empty files of one name, the stem or, where one of them exists, the stem and a number; no process gets the
    same."""
    for name in numbered(stem):
        made: list[Path] = []
        try:
            for ending in (*endings, "_overlay.png"):
                path = folder / f"{name}{ending}"
                path.touch(exist_ok=False)
                made.append(path)
        except FileExistsError:
            for path in made:
                path.unlink()
            continue
        return made[:-1], made[-1]
    raise AssertionError("there is always one more number")


def _lists(folder: Path) -> list[Path]:
    """The JSONL files of predictions in a folder, finished or not."""
    return sorted(path for path in folder.glob("predictions*.jsonl") if re.fullmatch(r"predictions(-\d+)?", path.stem))


def _join(parts: list[Path], path: Path) -> None:
    """Join the parts in turns, since samples were dealt to the processes in turns: the order is that of the data."""
    columns = [part.read_text(encoding="utf-8").splitlines(keepends=True) for part in parts]
    lines = (line for row in zip_longest(*columns) for line in row if line is not None)
    with whole(path) as file:
        file.write_text("".join(lines), encoding="utf-8")
    for part in parts:
        part.unlink()
