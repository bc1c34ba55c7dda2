"""Whether the answer is the reference, by rules alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.terms import RewardTerm, Scores, malformed
from lightning_sal.tasks import get_task
from lightning_sal.tasks.blocks import quoted
from lightning_sal.tasks.matching import matches
from lightning_sal.tasks.vqa import Text


class AnswerMatch(RewardTerm):
    """1 where the answer says what the reference says, else 0: the same words, the same number, or the same option.

    See `lightning_sal.tasks.matching.matches`. For long references, which nobody words alike, take `LLMJudge`. A malformed
    response gets 0.

    Args:
        tolerance: By which part of the reference a number may be off, >= 0; 0.05 is usual for charts.
    """

    name = "answer"
    bounds = (0.0, 1.0)

    def __init__(self, tolerance: float = 0.0) -> None:
        super().__init__()
        if not 0 <= tolerance < float("inf"):
            raise ValueError(f"tolerance {tolerance} of a number must be a part of it, from 0 on")
        self.tolerance = tolerance

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses by 0 or 1.

        Raises:
            ValueError: If a sample has no reference, or its task no answer in free words.
        """
        reasons = tuple(map(self._fault, responses))
        return Scores(torch.tensor([float(reason is None) for reason in reasons]), reasons)

    def _fault(self, response: Response) -> str | None:
        """Why the answer is not right, or None where it is."""
        said, reference = said_and_right(response, self.name)
        if response.answer.reason is not None:
            return malformed(response)
        if matches(said, reference, response.group.question, self.tolerance):
            return None
        return f"{quoted(said)} is not {quoted(reference)}"


def said_and_right(response: Response, term: str) -> tuple[str, str]:
    """The answer of a response in free words, and the reference.

    Args:
        response: The response.
        term: Who compares them, for the message.

    Raises:
        ValueError: There is none of the two.
    """
    group, answer = response.group, response.answer
    if not isinstance(answer, Text):
        raise ValueError(f"{group.key}: reward term '{term}' compares answers in free words, and {group.task} has none")
    if group.reference is None:
        get_task(group.task).require(group)
        raise ValueError(f"{group.key}: reward term '{term}' needs a reference; give its reference")
    return answer.text, group.reference
