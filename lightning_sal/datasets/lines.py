"""Samples of other layouts as lines of our own JSONL."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_sal.datasets.images import UnreadableSample, displayed_size
from lightning_sal.datasets.jsonl import Converted
from lightning_sal.datasets.records import Record


def to_lines(records: Iterable[Record], folder: Path) -> Iterator[Converted]:
    """Each sample without masks as a line, with boxes in pixels; of an image its size alone is read.

    Args:
        records: The samples, each of one image.
        folder: That the result's paths are relative to.
    """
    for record in records:
        (photograph,) = record.photographs
        try:
            if photograph.fault:
                raise UnreadableSample(photograph.fault)
            size = displayed_size(photograph.path)
            if faults := record.coordinate_faults(0, size):
                raise UnreadableSample("; ".join(faults))
            boxes = record.boxes and [each.read(size).tolist() for each in record.boxes]
        except UnreadableSample as error:
            yield Converted(record.source, fault=str(error))
            continue
        path = Path(os.path.relpath(photograph.path.resolve(), folder.resolve())).as_posix()
        fields: dict[str, Any] = {"task": record.task, "images": [path], "question": record.question}
        if record.reference is not None:
            fields["reference"] = record.reference
        if boxes is not None:
            fields["boxes"] = boxes
        if record.points is not None:
            fields["points"] = [each.tolist() for each in record.points]
        yield Converted(record.source, fields)
