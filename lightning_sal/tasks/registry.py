"""The tasks that a process knows by name: those of the package, and those that data and config name."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, TypeVar

from lightning_sal.files.code import import_place
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks.base import LOOK, Task

T = TypeVar("T", bound=Task)

TASKS: dict[str, Any] = {}


def register(task: T) -> T:
    """Make a task known by its name; call it where the task is defined.

    Returns:
        The task.

    Raises:
        ValueError: If another task has that name, or the name is not of letters, digits and _.
    """
    if not re.fullmatch(r"\w+", task.name):  # it becomes part of the names of metrics and files
        raise ValueError(f"task {task.name!r}: a name is of letters, digits and _ alone")
    if TASKS.setdefault(task.name, task) != task:
        raise ValueError(f"task {task.name!r}: there is another one of that name; take a name of your own")
    return task


def get_task(name: str) -> Any:
    """The `Task` of a name.

    Raises:
        ValueError: If there is none.
    """
    if name not in TASKS:
        raise ValueError(
            f"unknown task {name!r}: use one of {', '.join(TASKS)}, or your own as FILE.py:NAME or package.module:NAME"
        )
    return TASKS[name]


def load_task(spec: str) -> Any:
    """The `Task` that a user names, made known.

    Args:
        spec: The name of a known task; or where one of your own stands: `FILE.py:NAME`, `package.module:NAME`. It is code,
            and it is run: name none that you do not trust. Without `:NAME` the file defines one task.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such task.
    """
    place, _, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if not name and not place.endswith(".py"):
        return get_task(spec)
    module = import_place(place)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Task)}
    if name:
        if name not in found:
            raise ValueError(f"{place} has no task {name!r}; there is {', '.join(found) or 'none'}")
        return register(found[name])
    if len(set(map(id, found.values()))) != 1:
        raise ValueError(f"{place} has {len(found)} tasks: name one, as {place}:{next(iter(found), 'NAME')}")
    return register(next(iter(found.values())))


def task_of(group: ImageGroup, look: str | None = None) -> Any:
    """The `Task` that an image group asks for, with or without reasoning.

    Args:
        group: The group.
        look: Tag of the blocks that the reasoning must hold, in place of the task's; None for the task's.
    """
    task = get_task(group.task)
    if not group.reasoning:
        return task.without_reasoning()
    return task if look is None else replace(task, look=look)


def instructions() -> dict[str, str]:
    """What each known task asks, by its label: its name, and for the brief form its name and `WITHOUT_REASONING`.

    Under "look" stands the sentence that asks for blocks of a `{tag}` in the reasoning.
    """
    both = [each for task in TASKS.values() for each in (task, task.without_reasoning())]
    return {task.label: task.instruction for task in sorted(both, key=lambda task: not task.reasoning)} | {"look": LOOK}


def answer_tags() -> tuple[str, ...]:
    """Names of the tags around the parts of an answer, of all known tasks."""
    return tuple(dict.fromkeys(tag for task in TASKS.values() for tag in task.tags))
