"""From what a model wrote to the canonical response of a task, or to the reason why it cannot be used.

Mended is only what can mean one thing: what the task mends (see `Task.mend`), and a title's numbering and bold type.
Anything else is a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lightning_sal.annotation.wording import Forbidden
from lightning_sal.tasks import SEMANTIC, Task

MOST_REGIONS = 5  # "few", for regions that are no instances
MOST_NAME_WORDS = 3  # of a category behind [semantic]


def canonical(
    text: str,
    task: Task,
    *,
    titles: Sequence[str] = (),
    forbidden: Forbidden | None = None,
    instances: int | None = None,
) -> str:
    """The canonical response in what a model wrote.

    Args:
        text: All that it wrote.
        task: The task.
        titles: Of the steps that its reasoning must have, in this order.
        forbidden: What it must not say.
        instances: How many objects must be named; None where their number is free.

    Returns:
        A response of format reward 1.

    Raises:
        ValueError: It cannot be used; the message is `kind: detail`.
    """
    try:
        before, answer = task.mend(text)
        reasoning = _reasoning(before, titles) if task.reasoning else ""
        _check_labels(answer.labels, task)
        response = task.write(reasoning, answer)
    except ValueError as error:
        raise ValueError(f"malformed: {error}") from None
    if instances is not None and len(answer.labels) != instances:
        raise ValueError(f"instances: {len(answer.labels)} phrases for {instances} objects")
    if forbidden and (words := forbidden.find("\n".join([reasoning, *answer.labels]))):
        raise ValueError(f"gives the ground truth away: it says {words!r}")
    return response


def _reasoning(pieces: Sequence[str], titles: Sequence[str]) -> str:
    """The reasoning in the last text that has the titles: one line a step."""
    for piece in reversed(pieces):
        steps = _steps(piece, titles) if titles else [" ".join(piece.split())]
        if steps and all(steps):
            return (
                "\n".join(f"{title}: {step}" for title, step in zip(titles, steps, strict=True)) if titles else steps[0]
            )
    raise ValueError(f"the reasoning lacks {'a step of ' + ', '.join(titles) if titles else 'text'}")


def _steps(text: str, titles: Sequence[str]) -> list[str]:
    """What stands behind each title; empty where one is missing, there twice, or out of place."""
    marks = [match for title in titles for match in _title(title).finditer(text)]
    if len(marks) != len(titles) or marks != sorted(marks, key=lambda match: match.start()):
        return []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    bodies = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    return [" ".join(re.sub(r"\*\*|__|`", "", body).split()) for body in bodies]


def _title(title: str) -> re.Pattern[str]:
    """A title at the beginning of a line, or within one where a colon follows; with numbers and Markdown around it."""
    words = r"\s+".join(map(re.escape, title.split()))
    ornament = r"(?:(?:step|part)[ \t]*)?[\d.)*_#>:\- \t]*"
    return re.compile(rf"(?:^{ornament}{words}[*_ \t]*(?::[*_]*|$)|\b{words}[*_]*:[*_]*)", re.IGNORECASE | re.MULTILINE)


def _check_labels(labels: Sequence[str], task: Any) -> None:
    """Raises ValueError where an answer is no good example, though the task's grammar allows it."""
    if task.prompt_type is str and len(labels) > len(
        {label.lower() for label in labels}
    ):  # the same words, the same mask
        ((most, times),) = Counter(label.lower() for label in labels).most_common(1)
        raise ValueError(f"{most!r} is there {times} times")
    if task.masks_per_image == 1 and len(labels) > MOST_REGIONS:
        raise ValueError(f"{len(labels)} regions, at most {MOST_REGIONS} are few")
    for label in labels:
        if label.startswith(SEMANTIC) and len(label.split()) > 1 + MOST_NAME_WORDS:
            raise ValueError(f"{label!r} is more than the name of a category")
