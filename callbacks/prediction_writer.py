"""Predictions as files: masks, overlays, and a JSONL that says what belongs together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lightning as L
from PIL import Image
from torch import Tensor

from lightning_sal.drawing import overlay
from lightning_sal.samples import Prediction
from lightning_sal.tasks import get_task

LONGEST_STEM = 200  # bytes; file systems allow 255 for the whole name


class PredictionWriter(L.Callback):
    """Write masks, overlays and words of `predict` or `test` to a folder.

    For each image, at its own size: a mask `<name>.png` (0 and 255), or where the task's masks are instances one
    `<name>_<i>.png` each, from 0, and an overlay `<name>_overlay.png`. The name is that of the photograph without its
    suffix, or the group's key where it came from no file; where it is taken, a number is appended, so that no file is
    ever overwritten. For each group a line in `predictions.jsonl`:

        {"task", "benchmark", "key", "images", "response", "expressions", "reason", "confidence", "masks", "overlays"}

    `benchmark` is empty but in the test of several; `images` are paths as they were given; `masks`, a list an image, and
    `overlays` are relative to the folder, which `lightning-sal score` takes as predictions. Each line is written once its
    files are there. Several processes write to parts `predictions-<rank>.jsonl`, which the first one joins at the end; a
    run that was stopped leaves the lines it got to.

    What it asks of others, and nothing more: the module's `predict_step` returns a list of
    `lightning_sal.samples.Prediction`, and its `test_step` a pair of anything and such a list. Run `predict` with
    `return_predictions=False` to keep none of them in memory.

    Args:
        output_dir: The folder; made where it does not exist.
        overwrite: Whether a folder that holds predictions is taken: the files that its JSONL lists are deleted first.
            Without it such a folder is refused before any work.
    """

    def __init__(self, output_dir: Path, overwrite: bool = False) -> None:
        self.folder, self.overwrite = Path(output_dir), overwrite

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage not in ("predict", "test"):
            return
        old = _lists(self.folder)
        if old and not self.overwrite:
            raise FileExistsError(
                f"{old[0]}: predictions are there already; name another folder or set overwrite: true"
            )
        trainer.strategy.barrier("predictions looked for")  # no process may start to write before all have looked
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in old:
                _delete(path)
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
            line = json.dumps(write(self.folder, prediction))
            with self._list.open("a", encoding="utf-8") as file:
                file.write(line + "\n")  # in one piece: without its end no line is valid JSON

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


def write(folder: Path, prediction: Prediction) -> dict[str, Any]:
    """Write the masks and overlays of one prediction; returns its line of the JSONL."""
    group = prediction.group
    masks, overlays = [], []
    for number, (image, found) in enumerate(zip(group.images, prediction.masks, strict=True)):
        suffixes = [f"_{i}.png" for i in range(len(found))] if get_task(group.task).instances else [".png"]
        *mask_files, overlay_file = _reserve(folder, _stem(prediction, number), [*suffixes, "_overlay.png"])
        for file, mask in zip(mask_files, found, strict=True):
            _save(mask.byte() * 255, file)
        _save(overlay(image, found), overlay_file)
        masks.append([file.name for file in mask_files])
        overlays.append(overlay_file.name)
    return {
        "task": group.task,
        "benchmark": group.benchmark,
        "key": group.key,
        "images": list(group.paths),
        "response": prediction.text,
        "expressions": list(prediction.expressions),
        "reason": prediction.reason,
        "confidence": prediction.confidence,
        "masks": masks,
        "overlays": overlays,
    }


def _stem(prediction: Prediction, number: int) -> str:
    group = prediction.group
    if group.paths:
        stem = Path(group.paths[number]).stem
    else:
        key = re.sub(r"[^\w.-]+", "_", group.key)
        stem = f"{key}_image{number}" if len(group.images) > 1 else key
    return stem.encode(errors="surrogateescape")[:LONGEST_STEM].decode(errors="ignore")


def _reserve(folder: Path, stem: str, suffixes: Iterable[str]) -> list[Path]:
    """New empty files of one name, which is the stem or, where one of them exists, the stem and a number."""
    attempt = 1
    while True:
        name = stem if attempt == 1 else f"{stem}-{attempt}"
        made: list[Path] = []
        try:
            for suffix in suffixes:
                path = folder / f"{name}{suffix}"
                path.touch(exist_ok=False)
                made.append(path)
            return made
        except FileExistsError:
            for path in made:
                path.unlink()
            attempt += 1


def _save(pixels: Tensor, path: Path) -> None:
    Image.fromarray(pixels.cpu().numpy()).save(path)


def _lists(folder: Path) -> list[Path]:
    """The JSONL files of predictions in a folder, finished or not."""
    return sorted(path for path in folder.glob("predictions*.jsonl") if re.fullmatch(r"predictions(-\d+)?", path.stem))


def _delete(path: Path) -> None:
    """Delete a JSONL of predictions and the files beside it that it lists."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
            names = [name for names in (*fields["masks"], fields["overlays"]) for name in names]
        except (ValueError, KeyError, TypeError):  # the last line of a run that was killed, or none of ours
            continue
        for name in names:
            if Path(name).name == name and name.endswith(".png"):  # whatever a list says, its folder is not left
                (path.parent / name).unlink(missing_ok=True)
    path.unlink()


def _join(parts: list[Path], path: Path) -> None:
    """Join the parts in turns, since samples were dealt to the processes in turns: the order is that of the data."""
    columns = [part.read_text(encoding="utf-8").splitlines(keepends=True) for part in parts]
    lines = (line for row in zip_longest(*columns) for line in row if line is not None)
    whole = path.with_suffix(".tmp")
    whole.write_text("".join(lines), encoding="utf-8")
    whole.replace(path)
    for part in parts:
        part.unlink()
