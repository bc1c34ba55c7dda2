"""Whether an answer in free words is the right one."""

from __future__ import annotations

from lightning_sal.tasks.blocks import normalised


def matches(answer: str, reference: str, question: str = "") -> bool:
    """Whether an answer says what the reference says.

    Args:
        answer: As a policy wrote it.
        reference: The answer that is right.
        question: What was asked; it may hold the options of a multiple choice.
    """
    return normalised(answer).rstrip(".").casefold() == normalised(reference).rstrip(".").casefold()
