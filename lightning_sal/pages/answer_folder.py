"""A folder that answers are written to as they come, and that a later call goes on with.

segment.json          the settings of the answers
predictions.jsonl     a line a group, see `lightning_sal.pages.prediction_files`
masks/, overlays/     what the lines list
index.html            the gallery
instances.json        salient instances as COCO json, once all is done
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_sal.datasets.coco_results import Instances, write_instances
from lightning_sal.datasets.photographs import ANSWERS
from lightning_sal.files.reading import read_object
from lightning_sal.files.writing import numbered
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.gallery import Gallery
from lightning_sal.pages.prediction_files import append, delete_listed, pictures, write
from lightning_sal.predictions.readers import labels_of, parse_prediction
from lightning_sal.tasks import get_task

PAGES, INSTANCES = "index*.html", "instances.json"


class AnswerFolder:
    """What was answered in one folder, by one model under one set of settings.

    Every file of an answer is there before its line in `predictions.jsonl`, and what is there without a line is written
    anew: a run that was killed loses no more than the answer in work. One process at a time.

    Args:
        folder: New, empty, or written by this class.
        settings: What the answers depend on, as plain values; under `maps` whether they come with explanations.
        overwrite: Whether answers that are there are deleted first; files of others never are.
        notice: What the gallery says before all answers; nothing where it is empty.

    Raises:
        FileExistsError: The folder holds something else, or answers under other settings.
        BlockingIOError: Another process writes there.
        ValueError: What is in the folder does not fit together.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False, notice: str = "") -> None:
        self.folder, self.list = folder, folder / "predictions.jsonl"
        self._open(settings, overwrite)
        self._done: set[tuple[str, tuple[str, ...]]] = set()
        self._taken: set[str] = set()
        for fields in self._whole_lines():
            self._done.add((fields["task"], tuple(fields["images"])))
            self._taken.update(pictures(fields))
        subtitle = " · ".join(
            name.replace("_", " ") + f" {value}" * (value is not True)
            for name, value in settings.items()
            if value is not None
        )
        explained = bool(settings.get("maps"))
        self.gallery = Gallery(folder, "What stands out", subtitle, len(self._done), explained=explained, notice=notice)

    def _open(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        folder, stated = self.folder, self.folder / ANSWERS
        if not stated.is_file() and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} holds other things than answers of segment: name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = stated.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the process ends, or the file is closed
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another process writes there; wait, or name another folder") from None
        answers = self.list.is_file() and self.list.stat().st_size > 0  # none where the model could not be loaded
        difference = answers and _difference(read_object(stated), settings)
        if difference and not overwrite:
            raise FileExistsError(
                f"{folder} holds answers with {difference}: name another folder, or say --overwrite to delete them"
            )
        if overwrite or not answers:
            self._clear()
            self._lock.truncate(0)
            self._lock.write(json.dumps(settings, indent=1) + "\n")
            self._lock.flush()
        for name in ("masks", "overlays"):
            (folder / name).mkdir(exist_ok=True)

    def holds(self, task: str, files: Sequence[str]) -> bool:
        """Whether the group of these files is answered."""
        return (task, tuple(files)) in self._done

    def add(self, prediction: Prediction) -> None:
        """Write what was predicted for a group of files."""
        fields = write(self.folder, prediction, self._claim)
        self.gallery.add(prediction)
        append(self.list, json.dumps(fields, allow_nan=False))
        self._done.add((fields["task"], tuple(fields["images"])))

    def finish(self, unanswered: Sequence[str]) -> Path:
        """Write what needs all answers; gives the page to open.

        Args:
            unanswered: A line for each group that could not be answered.
        """
        (self.folder / INSTANCES).unlink(missing_ok=True)
        if any(get_task(task).masks_per_image is None for task, _ in self._done):
            write_instances(self.folder / INSTANCES, self._instances())
        self._lock.close()
        return self.gallery.finish(unanswered)

    def _claim(self, stem: str, endings: Sequence[str]) -> tuple[list[Path], Path]:
        for name in numbered(stem):
            masks, overlay = [f"masks/{name}{ending}" for ending in endings], f"overlays/{name}.png"
            if self._taken.isdisjoint((*masks, overlay)):
                self._taken.update((*masks, overlay))
                return [self.folder / mask for mask in masks], self.folder / overlay
        raise AssertionError("there is always one more number")

    def _clear(self) -> None:
        if self.list.is_file():
            delete_listed(self.list)
        for page in (*self.folder.glob(PAGES), self.folder / INSTANCES):
            page.unlink(missing_ok=True)

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        """The lines of the list; the rest of a last one that was cut off goes."""
        self.list.touch()
        with self.list.open("r+b") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    file.seek(-len(line), 2)
                    file.truncate()
                    return
                try:
                    fields = parse_prediction(line.decode())
                    get_task(str(fields.get("task")))
                except ValueError as error:
                    raise ValueError(f"{self.list}:{number}: {error}; start anew with --overwrite") from None
                yield fields

    def _instances(self) -> Iterator[Instances]:
        for fields in self._whole_lines():
            task = get_task(fields["task"])
            if task.masks_per_image is not None:
                continue
            labels = labels_of(fields)
            for image, masks, overlay in zip(fields["images"], fields["masks"], fields["overlays"], strict=True):
                with Image.open(self.folder / overlay) as drawn:
                    width, height = drawn.size
                found = [np.asarray(Image.open(self.folder / mask)) > 0 for mask in masks]
                yield Instances(image, (height, width), found, labels, fields["confidence"])


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What settings are there other than wanted, in words; empty where all agree."""
    other = [name for name in wanted if there.get(name) != wanted[name]]
    return ", ".join(f"{name} {there.get(name)} (now {wanted[name]})" for name in other)
