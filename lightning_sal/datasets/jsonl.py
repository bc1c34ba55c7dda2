"""Annotated responses for SFT: one JSON object a line.

    {"task": "sod", "images": ["a.jpg"], "masks": ["a.png"], "response": "<think>...</think><answer>...</answer>"}
    {"task": "sis", "images": ["b.jpg"], "annotation": "b.png", "response": "..."}
    {"task": "cosod", "images": ["c.jpg", "d.jpg"], "masks": ["c.png", "d.png"], "response": "..."}

`masks` is one file an image, or for SIS one file an instance; `annotation`, for SIS, is a file with one colour an
instance, or a list of COCO segmentations, one an instance. Either may be left out where only the words are known.
Paths are relative to the JSONL.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_sal.datasets.coco import Segmentations
from lightning_sal.datasets.images import UnreadableSample, read_mask
from lightning_sal.datasets.records import Annotation, Photograph, Record
from lightning_sal.datasets.sis import ColouredFile
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.tasks import TASKS

FIELDS = {"task", "images", "masks", "annotation", "response"}
GROUP_TASKS = {"cosod"}  # several images a sample


def jsonl_records(path: str | Path) -> list[Record]:
    """The samples of an SFT JSONL; a malformed line becomes a sample that cannot be read, named `file:line`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no line, or is not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from error
    records = [_record(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not records:
        raise ValueError(f"{path}: holds no line")
    return records


def _record(path: Path, number: int, line: str) -> Record:
    key, source = f"{path.stem}/{number}", f"{path}:{number}"
    try:
        fields = json.loads(line)
        _check(fields)
        photographs = _photographs(path.parent, fields)
    except json.JSONDecodeError as error:
        return Record(
            key, "", (Photograph(path, fault=f"not JSON: {error.msg} at column {error.colno}"),), source=source
        )
    except ValueError as error:
        return Record(key, "", (Photograph(path, fault=str(error)),), source=source)
    return Record(key, fields["task"], photographs, fields["response"], source)


def _check(fields: Any) -> None:
    """Raises ValueError with the reason where a line is not as the head of this file says."""
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    if unknown := sorted(set(fields) - FIELDS):
        raise ValueError(f"unknown fields {unknown}; known are {sorted(FIELDS)}")
    task, images = fields.get("task"), fields.get("images")
    if not isinstance(task, str) or task not in TASKS:
        raise ValueError(f"unknown task {task!r}; known are {sorted(TASKS)}")
    if not isinstance(fields.get("response"), str) or not fields["response"].strip():
        raise ValueError("`response` is not a text")
    if not _is_paths(images) or not images or not _is_paths(fields.get("masks", [])):
        raise ValueError("`images` and `masks` are lists of paths, with at least one image")
    if (len(images) > 1) != (task in GROUP_TASKS):
        raise ValueError(f"{len(images)} images for the task {task}")
    if not isinstance(fields.get("annotation", ""), str | list) or ("annotation" in fields and "masks" in fields):
        raise ValueError("`annotation` is a path or a list of segmentations, and takes the place of `masks`")
    if "annotation" in fields and not TASKS[task].instances:
        raise ValueError(f"`annotation` holds instances; the task {task} has `masks`")
    if not TASKS[task].instances and len(fields.get("masks", images)) != len(images):
        raise ValueError(f"{len(fields['masks'])} masks for {len(images)} images")


def _is_paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _photographs(folder: Path, fields: dict[str, Any]) -> tuple[Photograph, ...]:
    images = [folder / name for name in fields["images"]]
    masks = [folder / name for name in fields.get("masks", [])]
    annotation = fields.get("annotation")
    annotations: list[Annotation | None] = [None] * len(images)
    if isinstance(annotation, str):
        annotations = [ColouredFile(folder / annotation)]
    elif annotation is not None:
        drawings = [(f"instance {i}", segmentation) for i, segmentation in enumerate(annotation)]
        annotations = [Segmentations(drawings)]
    elif "masks" in fields:
        per_instance = TASKS[fields["task"]].instances
        annotations = [partial(_read_masks, masks)] if per_instance else [MaskFile(mask) for mask in masks]
    return tuple(Photograph(image, annotate) for image, annotate in zip(images, annotations, strict=True))


def _read_masks(paths: list[Path], size: tuple[int, int] | None, orientation: int) -> Tensor:
    """(I, H, W): one file an instance; the message names every file that fails."""
    masks, faults = [], []
    for path in paths:
        try:
            masks.append(read_mask(path, size, orientation))
        except UnreadableSample as error:
            faults.append(str(error))
    if faults:
        raise UnreadableSample("; ".join(faults))
    return torch.stack(masks) if masks and size else torch.zeros(0, *(size or (0, 0)), dtype=torch.bool)
