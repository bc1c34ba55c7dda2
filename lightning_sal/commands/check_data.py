"""name every file of a dataset that cannot be read"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.errors import printable

if TYPE_CHECKING:
    from lightning_sal.datasets import Record

PEEKED_MASKS = 8

Samples = tuple[str, ...]  # a task, and the digests of the images


def main(argv: list[str]) -> int:
    """Reads every sample of a folder or a JSONL and prints a line for each fault.

    Args:
        argv: The arguments after the command's name.

    Returns:
        0 where all is well, 1 where anything is bad.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-sal check-data",
        description="Name every missing, truncated or undecodable file, every image without mask and mask without "
        "image, and, by file and line, every malformed line or response, every response with another number of instances "
        "than there are, and every line that repeats the task and images of another. Exits with 1 where there is any.",
    )
    parser.add_argument("path", type=Path, help="folder of a benchmark, COCO json, or JSONL of annotated responses")
    parser.add_argument("--task", help="sod, sis or cosod, where the folder alone does not tell")
    arguments = parser.parse_args(argv)
    try:
        records = _records(arguments.path, arguments.task)
    except (OSError, ValueError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    strays = [photo for record in records for photo in record.photographs if photo.stray]
    for stray in strays:
        print(f"{stray.fault}, left out")
    records = [record for record in records if not all(photo.stray for photo in record.photographs)]
    faults, bare = len(strays), 0
    seen: dict[Samples, str] = {}
    for number, record in enumerate(records, 1):
        bare += record.response is not None and all(photo.annotation is None for photo in record.photographs)
        for fault in _faults(record, seen):
            faults += 1
            print(printable(fault))
        if sys.stderr.isatty():
            print(f"\r{number} of {len(records)}", end="\n" if number == len(records) else "", file=sys.stderr)
    tasks = ", ".join(sorted({record.task for record in records if record.task})) or "no task"
    images = sum(len(record.photographs) for record in records)
    samples = f"{len(records)} samples ({tasks})" + (f", {bare} without masks" if bare else "")
    print(f"{arguments.path}: {samples}, {images} images, {faults or 'no'} faults")
    return int(faults > 0)


def _records(path: Path, task: str | None) -> list[Record]:
    """All samples below `path`, those of every split.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The task is unknown, or `path` holds nothing of it.
    """
    from lightning_sal.datasets import LAYOUTS, jsonl_records

    if path.suffix == ".jsonl":
        return jsonl_records(path)
    if task is not None and task not in LAYOUTS:
        raise ValueError(f"unknown task {task!r}; known are {sorted(LAYOUTS)}")
    layout = LAYOUTS[task or _infer_task(path)]
    records = [record for candidate in layout.candidates(path) for record in candidate.records()]
    return records or layout.records(path)  # which says what was looked for


def _infer_task(path: Path) -> str:
    """The one task whose layout fits; flat pairs of image and mask are SIS where the masks show colours, else SOD."""
    from lightning_sal.datasets import LAYOUTS
    from lightning_sal.datasets.layouts import contents

    fitting = {task: found for task, layout in LAYOUTS.items() if (found := layout.candidates(path))}
    if not fitting:
        looked_for = "; ".join(f"{task}: {layout.looked_for}" for task, layout in LAYOUTS.items())
        raise ValueError(f"{path}: no known layout; looked for {looked_for}; found {contents(path)}")
    if "cosod" in fitting:  # whose groups might be datasets of the others, too
        fitting = {task: found for task, found in fitting.items() if task == "cosod" or not found[0].deep}
    same_masks = (
        len({tuple(mask for candidate in found for mask in candidate.masks) for found in fitting.values()}) == 1
    )
    if set(fitting) == {"sod", "sis"} and same_masks:
        masks = [mask for candidate in fitting["sis"] for mask in candidate.masks[:PEEKED_MASKS]]
        return "sis" if any(_coloured(mask) for mask in masks) else "sod"
    if len(fitting) > 1:
        raise ValueError(f"{path}: fits the tasks {', '.join(fitting)}; say which with --task")
    return next(iter(fitting))


def _coloured(mask: Path) -> bool:
    from lightning_sal.datasets.images import UnreadableSample, shows_colour

    try:
        return shows_colour(mask)
    except UnreadableSample:
        return False


def _faults(record: Record, seen: dict[Samples, str]) -> Iterator[str]:
    """One line for each fault of a sample.

    Args:
        record: The sample.
        seen: Task and images -> where they stood first, of the annotated samples before this one, which is added.
    """
    from lightning_sal.datasets import UnreadableSample
    from lightning_sal.datasets.splitting import digest
    from lightning_sal.tasks import TASKS

    try:
        group = record.read()
    except UnreadableSample:
        group = None
        yield from record.problems()
    if record.response is None:
        return
    answer = TASKS[record.task].parse(record.response)
    if answer.reason:
        yield f"{record.source}: malformed response: {answer.reason}"
    if group is None:
        return
    instances = len(group.masks[0]) if group.masks and TASKS[record.task].instances else None
    if instances not in (None, len(answer.expressions)) and not answer.reason:
        yield f"{record.source}: {len(answer.expressions)} expressions for {instances} instances"
    images = sorted(digest(photograph.path) for photograph in record.photographs)
    first = seen.setdefault((record.task, *images), record.source)
    if first != record.source:
        yield f"{record.source}: the same task and images as {first}"
