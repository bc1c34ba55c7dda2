"""The samples that a command is given: a dataset, a JSONL, photographs, or procedural scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lightning_sal.datasets.files import is_picture
from lightning_sal.datasets.photographs import find_groups, read_group
from lightning_sal.datasets.scenes import HELD_OUT, SCENES, SceneGroups
from lightning_sal.datasets.sources import layout_of, task_records
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Task


def find_samples(
    task: Task, paths: Sequence[str], scenes: int | None = None, split: str | None = None
) -> list[Callable[[], ImageGroup]]:
    """What reads each sample of a task.

    Args:
        task: The task.
        paths: A dataset as `check-data` knows it, a JSONL, or image files, folders and patterns without ground truth.
        scenes: So many procedural scenes, held out of training, instead.
        split: "train", "val" or "test" chooses where a dataset holds several.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: There are both paths and scenes, or neither; or nothing of the task.
    """
    if bool(paths) == bool(scenes):
        raise ValueError("give either PATH or --scenes N: what samples are meant")
    if scenes:
        if task.name not in SCENES:
            raise ValueError(f"there are no scenes of {task.name}: use {', '.join(SCENES)}, or give PATH")
        held_out = SceneGroups(HELD_OUT["test"], {task.name: 1}, size=scenes, annotated=False)
        return [partial(held_out.__getitem__, index) for index in range(scenes)]
    if len(paths) == 1 and _is_dataset(Path(paths[0]), task):
        return [record.read for record in task_records(task, paths[0], split)]
    return [partial(read_group, files, task.name) for files in find_groups(paths, task.name)]


def _is_dataset(path: Path, task: Task) -> bool:
    if path.suffix.lower() in (".json", ".jsonl"):
        return True
    return bool(task.layout) and (path.is_dir() or not is_picture(path.name)) and layout_of(task).holds(path)
