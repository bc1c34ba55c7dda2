"""From what a model wrote to the canonical response of a task, or to the reason why it cannot be used.

Mended is only what can mean one thing: Markdown around the answer, the case and spacing of tags and of `[semantic]`, a
title's numbering and bold type, text around the blocks, a missing or doubled think block (some models put thoughts of their
own in front: the reasoning is the last text before the answer that has the titles). A CoSOD answer that lacks
`[semantic]`, which is the same in all of them, gets it. Anything else is a fault.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from lightning_sal.annotation.wording import Forbidden
from lightning_sal.tasks import SEMANTIC, TagTask

MOST_REGIONS = 5  # "few", for regions that are no instances
MOST_NAME_WORDS = 3  # of a category behind [semantic]
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
_TAG = re.compile(r"<[ \t]*(/?)[ \t]*(think|answer|rg|ins)[ \t]*>", re.IGNORECASE)
_SEMANTIC = re.compile(r"\[\s*semantic\s*\]\s*", re.IGNORECASE)


def canonical(
    text: str,
    task: TagTask,
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
        instances: How many expressions there must be; None where their number is free.

    Returns:
        A response of format reward 1.

    Raises:
        ValueError: It cannot be used; the message is `kind: detail`.
    """
    plain = _TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", _FENCE.sub("", text))
    before, opened, behind = plain.rpartition("<answer>")
    body, closed, after = behind.partition("</answer>")
    if not opened or "</think>" in after:
        raise ValueError("malformed: there is no <answer> block behind the reasoning")
    if "<answer>" in before.rpartition("</think>")[2]:
        raise ValueError("malformed: there are several <answer> blocks")
    if not closed:
        raise ValueError("malformed: the <answer> block has no end")
    think = _reasoning(before, titles)
    expressions = _expressions(body, task)
    if instances is not None and len(expressions) != instances:
        raise ValueError(f"instances: {len(expressions)} phrases for {instances} objects")
    if forbidden and (said := forbidden.find("\n".join([think, *expressions]))):
        raise ValueError(f"gives the ground truth away: it says {said!r}")
    try:
        return task.response(think, expressions)
    except ValueError as error:
        raise ValueError(f"malformed: {error}") from None


def _reasoning(text: str, titles: Sequence[str]) -> str:
    """The reasoning in the text before an answer: one line a step."""
    for part in reversed(re.split("</?think>", text)):
        steps = _steps(part, titles) if titles else [" ".join(part.split())]
        if steps and all(steps):
            return (
                "\n".join(f"{title}: {step}" for title, step in zip(titles, steps, strict=True)) if titles else steps[0]
            )
    raise ValueError(f"malformed: the reasoning lacks {'a step of ' + ', '.join(titles) if titles else 'text'}")


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


def _expressions(body: str, task: TagTask) -> tuple[str, ...]:
    mended = _SEMANTIC.sub(f"{SEMANTIC} ", body)
    if task.semantic == "required" and mended.count(f"<{task.tag}>") == 1 and SEMANTIC not in mended:
        mended = mended.replace(f"<{task.tag}>", f"<{task.tag}>{SEMANTIC} ")
    answer = task.without_reasoning().parse(f"<answer>{mended}</answer>")
    if answer.reason:
        raise ValueError(f"malformed: {answer.reason}")
    expressions = tuple(expression.rstrip(".,;:") for expression in answer.expressions)
    (most, times), *_ = Counter(expression.lower() for expression in expressions).most_common(1)
    if times > 1:
        raise ValueError(f"malformed: {most!r} is there {times} times")
    if task.masks_per_image == 1 and len(expressions) > MOST_REGIONS:
        raise ValueError(f"malformed: {len(expressions)} regions, at most {MOST_REGIONS} are few")
    for expression in expressions:
        if expression.startswith(SEMANTIC) and len(expression.split()) > 1 + MOST_NAME_WORDS:
            raise ValueError(f"malformed: {expression!r} is more than the name of a category")
    return expressions
