"""Samples as JSON, one object a line, with annotated responses for SFT or without.

    {"task": "sod", "images": ["a.jpg"], "masks": ["a.png"], "response": "<think>...</think><answer>...</answer>"}
    {"task": "sis", "images": ["b.jpg"], "annotation": "b.png", "response": "..."}
    {"task": "cosod", "images": ["c.jpg", "d.jpg"], "masks": ["c.png", "d.png"], "response": "..."}
    {"task": ..., "images": ["e.jpg"], "question": "How many dogs?", "reference": "2", "boxes": [[[4, 8, 60, 52]]]}

    {"task": "perception", "images": ["f.jpg"], "question": "the red mug", "annotation": [], "boxes": [[]]}

`task` and `images` must be there. `masks` is one file an image, or, of a task with instances, one file an instance;
`annotation`, for instances, is a file with one colour each, or a list of COCO segmentations; where the task has one mask of
one image, it is their union, which an empty list leaves without a pixel. `response` is what SFT
learns; RL and evaluation do without. `question` and `reference` are texts; `boxes` (x0, y0, x1, y1) and `points` (x, y) are
lists, one an image, in pixels of the image. A box that sticks out of its image by up to 5 % is clipped to it. What a task
needs of these, it says where it is missing. Paths are relative to the JSONL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from lightning_sal.datasets.boxes import Boxes, Points
from lightning_sal.datasets.images import UnreadableSample, read_mask
from lightning_sal.datasets.records import Annotation, Photograph, Record
from lightning_sal.datasets.segmentations import Segmentations
from lightning_sal.datasets.sis import ColouredFile
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.datasets.spelling import file_of
from lightning_sal.datasets.unions import Union
from lightning_sal.files.reading import parse_object, read_text
from lightning_sal.tasks import TASKS

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = {"task", "images", "masks", "annotation", "response", "question", "reference", "boxes", "points"}
TEXTS = ("response", "question", "reference")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a JSONL.

    Args:
        path: The file.
        number: Of the line, from 1.
        fields: What it holds; empty where it has a fault.
        fault: Why it is not as the head of this file says, or None.
    """

    path: Path
    number: int
    fields: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None

    @property
    def source(self) -> str:
        """`file:line`, as messages name it."""
        return f"{self.path}:{self.number}"


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a line.

    Args:
        source: Where it stood, as `file:line`.
        result: The converted line, or None.
        fault: Why there is none, or None.
        left: What of it has no place in the result, in words.
    """

    source: str
    result: dict[str, Any] | None = None
    fault: str | None = None
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MaskFiles:
    """The annotation of a photograph with a file an instance.

    Args:
        paths: The I files.
    """

    paths: list[Path]

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        """(I, H, W): one file an instance; the message names every file that fails."""
        import torch

        masks, faults = [], []
        for path in self.paths:
            try:
                masks.append(read_mask(path, size, orientation))
            except UnreadableSample as error:
                faults.append(str(error))
        if faults:
            raise UnreadableSample("; ".join(faults))
        return torch.stack(masks) if masks and size else torch.zeros(0, *(size or (0, 0)), dtype=torch.bool)


def jsonl_records(path: str | Path) -> list[Record]:
    """The samples of a JSONL; a malformed line becomes a sample that cannot be read, named `file:line`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no line, or is not UTF-8.
    """
    return [_record(line) for line in read_lines(path)]


def read_lines(path: str | Path) -> list[Line]:
    """The lines of a JSONL as they stand; empty ones are left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no line, or is not UTF-8.
    """
    path = Path(path)
    texts = read_text(path).split("\n")
    return [_line(path, number, text) for number, text in enumerate(texts, 1) if text.strip()]


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a new file with a JSON object on each line.

    Raises:
        FileExistsError: There is such a file already.
    """
    with path.open("x", encoding="utf-8", errors="backslashreplace") as file:  # JSON's own escape of what is no UTF-8
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def moved(fields: dict[str, Any], source: Path, target: Path) -> dict[str, Any]:
    """The fields of a line with paths that hold in another folder.

    Args:
        fields: Of a line that keeps the format.
        source: The folder that its paths are relative to; absolute ones stay.
        target: The folder that they shall be relative to.
    """
    source, target = source.resolve(), target.resolve()

    def path(name: str) -> str:
        same = source == target or Path(name).is_absolute()
        return name if same else Path(os.path.relpath(file_of(source, name), target)).as_posix()

    fields = fields | {key: [path(name) for name in fields[key]] for key in ("images", "masks") if key in fields}
    if isinstance(fields.get("annotation"), str):
        fields["annotation"] = path(fields["annotation"])
    return fields


def _line(path: Path, number: int, text: str) -> Line:
    try:
        fields = parse_object(text)
        check_fields(fields)
    except ValueError as error:
        return Line(path, number, fault=str(error))
    return Line(path, number, fields)


def _record(line: Line) -> Record:
    key = f"{line.path.stem}/{line.number}"
    if line.fault is not None:
        return Record(key, "", (Photograph(line.path, fault=line.fault),), source=line.source)
    fields = line.fields
    return Record(
        key,
        fields["task"],
        _photographs(line.path.parent, fields),
        fields.get("response"),
        line.source,
        question=fields.get("question", ""),
        reference=fields.get("reference"),
        boxes=tuple(Boxes(tuple(of_image)) for of_image in fields["boxes"]) if "boxes" in fields else None,
        points=tuple(Points(tuple(of_image)) for of_image in fields["points"]) if "points" in fields else None,
    )


def check_fields(fields: dict[str, Any]) -> None:
    """Raises ValueError with the reason where a line is not as the head of this file says."""
    if unknown := sorted(set(fields) - FIELDS):
        raise ValueError(f"unknown fields {shortened(unknown)}; known are {sorted(FIELDS)}")
    name, images = fields.get("task"), fields.get("images")
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"unknown task {shortened(name)}; known are {sorted(TASKS)}")
    task = TASKS[name]
    for key in TEXTS:
        if key in fields and (not isinstance(fields[key], str) or not fields[key].strip()):
            raise ValueError(f"`{key}` is not a text")
    if not _is_paths(images) or not images or not _is_paths(fields.get("masks", [])):
        raise ValueError("`images` and `masks` are lists of paths, with at least one image")
    if (len(images) > 1) != task.several:
        raise ValueError(f"{len(images)} images for the task {name}")
    _check_coordinates(fields)
    if not isinstance(fields.get("annotation", ""), str | list) or ("annotation" in fields and "masks" in fields):
        raise ValueError("`annotation` is a path or a list of segmentations, and takes the place of `masks`")
    if "annotation" in fields and (task.masks_per_image == 0 or task.several):
        raise ValueError(f"`annotation` holds instances of one image; the task {name} has none such")
    if task.masks_per_image is not None and len(fields.get("masks", images)) != len(images):
        raise ValueError(f"{len(fields['masks'])} masks for {len(images)} images")
    if task.masks_per_image is None and "masks" in fields and len(images) > 1:
        raise ValueError("`masks` is one file an instance, of one image alone: give `annotation` for several images")


def _check_coordinates(fields: dict[str, Any]) -> None:
    """Raises ValueError where `boxes` or `points` are none, as far as a line tells without its images."""
    none = [[]] * len(fields["images"])
    for name in ("boxes", "points"):
        given = fields.get(name, none)
        if not isinstance(given, list) or len(given) != len(none) or not all(isinstance(each, list) for each in given):
            raise ValueError(f"`{name}` is not a list with one list an image")
    for name, kind in (("boxes", Boxes), ("points", Points)):
        if faults := [fault for of_image in fields.get(name, none) for fault in kind(tuple(of_image)).faults()]:
            raise ValueError(f"`{name}`: {'; '.join(faults)}")


def _is_paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _photographs(folder: Path, fields: dict[str, Any]) -> tuple[Photograph, ...]:
    images = [file_of(folder, name) for name in fields["images"]]
    masks = [file_of(folder, name) for name in fields.get("masks", [])]
    annotation = fields.get("annotation")
    annotations: list[Annotation | None] = [None] * len(images)
    if isinstance(annotation, str):
        annotations = [ColouredFile(file_of(folder, annotation))]
    elif annotation is not None:
        drawings = [(f"instance {i}", segmentation) for i, segmentation in enumerate(annotation)]
        annotations = [Segmentations(drawings)]
    if TASKS[fields["task"]].masks_per_image is not None:
        annotations = [each and Union(each) for each in annotations]
    if "masks" in fields:
        per_instance = TASKS[fields["task"]].masks_per_image is None
        annotations = [MaskFiles(masks)] if per_instance else [MaskFile(mask) for mask in masks]
    return tuple(Photograph(image, annotate) for image, annotate in zip(images, annotations, strict=True))
