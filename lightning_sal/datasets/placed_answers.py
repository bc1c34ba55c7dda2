"""Answers by boxes and points as texts: written from what a line states, and brought to pixels from other units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_sal.datasets.images import displayed_size
from lightning_sal.frames import Square, to_original
from lightning_sal.tasks import TASKS, BoxTask, Objects
from lightning_sal.tasks.boxes import first_answer, write_list


def answer_from(fields: Mapping[str, Any]) -> str | None:
    """The response, without reasoning, that lists the boxes and points of a line.

    Args:
        fields: Of a line, in our own form.

    Returns:
        The response; None where the task is not answered so, or there is not one box and one point for each object.
    """
    task = TASKS[fields["task"]]
    if not isinstance(task, BoxTask) or "boxes" not in fields:
        return None
    boxes, points = fields["boxes"][0], fields.get("points", [[]])[0]
    if len(boxes) != len(points):
        return None
    places = [tuple(tuple(map(float, each)) for each in listed) for listed in (boxes, points)]
    return task.without_reasoning().write("", Objects(places[0], places[1]))


def in_pixels(response: str, task: BoxTask, image: Path, unit: str | None) -> str:
    """A response with its places in pixels of the image.

    Args:
        response: One that the task can read.
        task: The task.
        image: The image.
        unit: What they are in: "pixels", "normalised", or the side of a square as text.

    Raises:
        UnreadableSample: The image cannot be read.
        ValueError: The unit is not said, or none.
    """
    if unit == "pixels":
        return response
    if unit is None:
        raise ValueError("nothing says in what its boxes and points are: give --boxes")
    if unit != "normalised" and not (unit.isdecimal() and int(unit[:9]) > 0):
        raise ValueError(f"--boxes is {unit}, where pixels, normalised or the side of a square must stand")
    frame, size = Square(1 if unit == "normalised" else int(unit)), displayed_size(image)
    moved = task.parse(response).moved(lambda values: to_original(values, frame, size))
    start, end = first_answer(response) or (0, 0)
    return response[:start] + write_list(moved) + response[end:]
