"""What is to be annotated: the samples of a dataset, each as the line of an SFT JSONL that will name it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lightning_sal import run_lengths
from lightning_sal.datasets import Photograph, Record, task_records
from lightning_sal.datasets.boxes import Boxes, Points
from lightning_sal.datasets.cosod import chunks
from lightning_sal.datasets.images import UnreadableSample, displayed_size, read_orientation, read_size
from lightning_sal.datasets.jsonl import MaskFiles
from lightning_sal.datasets.segmentations import Segmentations
from lightning_sal.datasets.sis import ColouredFile
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.tasks import get_task

IDENTITY = ("task", "images", "masks", "annotation", "question")


@dataclass(frozen=True)
class Sample:
    """A record of a dataset and how an SFT JSONL names it.

    Args:
        record: The files.
        category: Name of the group that it belongs to; of the photograph where it belongs to none.
        fields: `task`, `images`, `masks` or `annotation`, and the rest but the response, as `lightning_sal.datasets.jsonl`
            reads them.
    """

    record: Record
    category: str
    fields: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """The same for the same task, images and annotation."""
        return key_of(self.fields)


def list_samples(task: str, data: Path, folder: Path, *, split: str | None, group_size: int) -> list[Sample]:
    """The samples of a dataset, each once.

    Args:
        task: Name of the task.
        data: A folder of a layout of the task, a COCO json, or a JSONL.
        folder: Where the JSONL lies, to which paths are relative.
        split: "train", "val" or "test" where `data` holds several.
        group_size: Most images of a sample, >= 2; larger groups are cut into parts of nearly equal size.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no known layout, or more than one fits.
    """
    samples = [
        Sample(part, record.key, fields_of(part, folder))
        for record in task_records(get_task(task), data, split)
        for part in chunks([record], group_size)
    ]
    return list({sample.key: sample for sample in samples}.values())


def key_of(fields: Mapping[str, Any]) -> str:
    """What tells a line of a JSONL from the lines of other samples; a response or a reason does not count."""
    identity = {name: fields[name] for name in IDENTITY if name in fields}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def fields_of(record: Record, folder: Path) -> dict[str, Any]:
    """The line of an SFT JSONL in `folder` that names the files of a record, without its response."""

    def relative(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    fields: dict[str, Any] = {
        "task": record.task,
        "images": [relative(photograph.path) for photograph in record.photographs],
    }
    readers = [photograph.annotation for photograph in record.photographs]
    match readers:
        case [ColouredFile(path)]:
            fields["annotation"] = relative(path)
        case [Segmentations()]:
            fields["annotation"] = _segmentations(record.photographs[0], readers[0])
        case [MaskFiles(paths)]:
            fields["masks"] = [relative(path) for path in paths]
        case _:
            masks = [relative(reader.path) for reader in readers if isinstance(reader, MaskFile)]
            fields |= {"masks": masks} if masks else {}
    texts = {"question": record.question, "reference": record.reference}
    fields |= {name: text for name, text in texts.items() if text}
    if record.boxes is not None:
        fields["boxes"] = list(map(_in_pixels, record.photographs, record.boxes))
    if record.points is not None:
        fields["points"] = list(map(_in_pixels, record.photographs, record.points))
    return fields


def _in_pixels(photograph: Photograph, listed: Boxes | Points) -> list[Any]:
    """Boxes or points in pixels of the photograph as it is displayed, as a JSONL has them."""
    try:
        return listed.read(displayed_size(photograph.path)).tolist()
    except UnreadableSample:  # the sample is refused where it is read, which says why
        return list(listed.rows)


def _segmentations(photograph: Photograph, drawn: Segmentations) -> list[Any]:
    """The segmentations in the frame of the photograph as it is displayed, which is that of a JSONL."""
    given = [segmentation for _, segmentation in drawn.drawings]
    try:
        height, width = read_size(photograph.path)
        if drawn.frame in (None, (width, height) if read_orientation(photograph.path) > 4 else (height, width)):
            return given
        masks = photograph.read()[1]
    except UnreadableSample:  # the sample is refused where it is read, which says why
        return given
    return given if masks is None else [_run_lengths(mask.numpy()) for mask in masks]


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO's run lengths."""
    return {"size": list(mask.shape), "counts": run_lengths.of_mask(mask).tolist()}
