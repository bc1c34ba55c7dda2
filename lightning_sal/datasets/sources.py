"""Where samples come from: the layout in which a task is found on disk, a JSONL, or a source of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

from lightning_sal.datasets.jsonl import jsonl_records
from lightning_sal.datasets.layouts import Layout
from lightning_sal.datasets.records import Record
from lightning_sal.tasks import Task


class Source(Protocol):
    """Samples of a task from anywhere; YAML names a class with this method by its class_path, in place of a folder."""

    def records(self, split: str) -> Sequence[Record]:
        """The samples of "train", "val" or "test", in a stable order; their `task` is the one that asks."""
        ...


def layout_of(task: Task) -> Layout:
    """The layout in which a task is found.

    Raises:
        ValueError: The task names none, or there is none of that name.
    """
    module, _, name = task.layout.rpartition(".")
    if not module:
        raise ValueError(f"the task {task.name} has no layout on disk: give a JSONL, or a source by its class_path")
    try:
        layout = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the task {task.name} names the layout {task.layout}, which is not there: {error}") from error
    if not isinstance(layout, Layout):
        raise ValueError(f"the task {task.name} names the layout {task.layout}, which is a {type(layout).__name__}")
    return layout


def in_layout(task: Task, where: str | Path) -> bool:
    """Whether a file lies in the layout of a task, as a JSONL may that is not our own."""
    return bool(task.layout) and Path(where).is_file() and bool(layout_of(task).match(Path(where)))


def evaluation_split(task: Task, where: str | Path | Source, wanted: str) -> str | None:
    """The split of a folder to evaluate on, beside its own training split; None where it has none such.

    Args:
        task: The task.
        where: As for `task_records`.
        wanted: "val" or "test", which is taken where there is one, and otherwise the other.
    """
    if not isinstance(where, (str, Path)) or (Path(where).suffix == ".jsonl" and not in_layout(task, where)):
        return None
    found = {candidate.split for candidate in layout_of(task).candidates(where)}
    order = ("val", "test") if wanted == "val" else ("test", "val")
    return next((split for split in order if {"train", split} <= found), None)


def task_records(task: Task, where: str | Path | Source, split: str | None = None) -> list[Record]:
    """The samples of a task.

    Args:
        task: The task.
        where: A folder or file in the task's layout; our own JSONL, of which the lines of the task are taken, and its
            malformed lines, so that they are counted; or a source.
        split: "train", "val" or "test" chooses where a folder holds several.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: It holds nothing of the task.
    """
    if not isinstance(where, (str, Path)):
        records = list(where.records(split or "train"))
    elif Path(where).suffix == ".jsonl" and not in_layout(task, where):
        records = [record for record in jsonl_records(where) if record.task in (task.name, "")]
        if not any(record.task for record in records):
            raise ValueError(f"{where}: holds no line of the task {task.name}")
        return records
    else:
        records = layout_of(task).records(where, split)
    return [replace(record, task=task.name) for record in records]
