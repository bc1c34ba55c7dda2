"""Samples of other layouts as lines of our own JSONL."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_sal.datasets.coco_results import instance
from lightning_sal.datasets.images import UnreadableSample, displayed_size, read_orientation
from lightning_sal.datasets.jsonl import Converted
from lightning_sal.datasets.records import Record


def to_lines(records: Iterable[Record], folder: Path, unpacked: Path | None = None) -> Iterator[Converted]:
    """Each sample as a line, with boxes and points in pixels and masks as run lengths; of an image its size alone is read.

    Args:
        records: The samples, each of one image.
        folder: That the result's paths are relative to.
        unpacked: A folder that is made where images lie inside a table, and into which these are written as they stand; it
            will have its name beside the result.
    """
    written: dict[Any, Path] = {}  # several samples may be of one image
    for number, record in enumerate(records):
        (photograph,) = record.photographs
        try:
            if photograph.fault:
                raise UnreadableSample(photograph.fault)
            if photograph.content and unpacked:
                if (file := written.get(photograph.content)) is None:
                    unpacked.mkdir(exist_ok=True)
                    file = written[photograph.content] = unpacked / f"{number:06}"
                    file.write_bytes(photograph.content())
                path = f"{unpacked.name}/{file.name}"
            else:
                file = photograph.path
                path = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
            size = displayed_size(file)
            masks = photograph.annotation and photograph.annotation(size, read_orientation(file))
            given = {"boxes": record.boxes, "points": record.points}
            places = {
                name: [places.read(size).tolist() for places in listed] for name, listed in given.items() if listed
            }
        except UnreadableSample as error:
            yield Converted(record.source, fault=str(error))
            continue
        fields: dict[str, Any] = {"task": record.task, "images": [path], "question": record.question}
        if masks is not None:
            fields["annotation"] = [instance(mask.numpy())["segmentation"] for mask in masks if mask.any()]
        if record.reference is not None:
            fields["reference"] = record.reference
        yield Converted(record.source, fields | places)
