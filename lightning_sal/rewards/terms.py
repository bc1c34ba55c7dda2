"""The terms of the reward: each scores B responses by one criterion and gives reasons beside its values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_sal.inference.responses import MASKS, Response
from lightning_sal.tasks import get_task, load_task
from lightning_sal.tasks.measures import primary
from lightning_sal.transfer import read


@dataclass(frozen=True, slots=True)
class Scores:
    """What a term gives to B responses.

    Args:
        values: (B,) float.
        reasons: For each response a line that says why its value is what it is, where there is something to say.
        observed: (B, ...) what `RewardTerm.commit` gets to remember; None for the values.
        known: (B,) bool, False where there is nothing to compute a value from, which is counted and never taken for 0; its
            reason says why. None where all are known.
    """

    values: Tensor
    reasons: tuple[str | None, ...]
    observed: Tensor | None = None
    known: Tensor | None = None


class RewardTerm(nn.Module, ABC):
    """A criterion of the reward; a new one is a subclass that YAML names by its class_path.

    `forward` is pure: called twice it gives the same. What a term remembers it keeps in buffers, whose shapes stay, where
    checkpoints find it, and changes in `commit` alone. So validation, responses that dynamic sampling throws away (unless it
    throws away all), and comparisons before and after a run never move it.
    """

    name: str
    needs: ClassVar[frozenset[str]] = frozenset()
    """What it needs of a response beside group, text, answer, tokens and confidence: `masks`, `maps`."""
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    """The least and the largest value that it gives; CGPO refuses a total that may leave [0, 1]."""

    @abstractmethod
    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses.

        Args:
            responses: What is judged, with what `needs` names.

        Returns:
            Values within `bounds`, and reasons.
        """

    def commit(self, observed: Tensor) -> None:
        """Remember what an update was made from; called once after it, alike on all ranks.

        Args:
            observed: (N, ...) what `forward` observed of all responses that were learnt from, those of all ranks in the
                order of their prompts, as one process would have them. Where dynamic sampling left none, of all that were
                sampled.
        """


class Correctness(RewardTerm):
    """How well the answer agrees with the ground truth: the primary measure of its task, averaged over its images.

    S-measure of the region for SOD and CoSOD, for SIS that of the matched instances over all that are there or were named
    (`matched_structure_measure`). A response without a readable answer gets 0.

    Args:
        measures: Task -> the measure that counts in place of the primary one, which images have one by one and of which
            more is better: {sis: iasm} takes IASM as it is defined. Null takes the primary one for every task.

    Raises:
        ValueError: If there is no such task or measure.
    """

    name = "correctness"
    needs = frozenset({MASKS})
    bounds = (0.0, 1.0)

    def __init__(self, measures: dict[str, str] | None = None) -> None:
        super().__init__()
        self.measures = {load_task(spec).name: _fitting(spec, measure) for spec, measure in (measures or {}).items()}

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1].

        Raises:
            ValueError: If the ground truth of a group is unknown.
        """
        values = torch.zeros(len(responses), dtype=torch.float64)
        by_task: dict[str, list[int]] = defaultdict(list)
        for row, response in enumerate(responses):
            by_task[response.group.task].append(row)
        for name, rows in by_task.items():
            values[rows] = torch.tensor(
                _task_correctness(name, [responses[row] for row in rows], self.measures.get(name)), dtype=torch.float64
            )
        found = read(*(torch.stack([mask.any() for mask in each.masks]).any() for each in responses if each.masks))
        seen = iter(found)
        return Scores(
            values.float(), tuple(_reason(each, bool(next(seen)) if each.masks else None) for each in responses)
        )


class Format(RewardTerm):
    """Whether the response keeps the format: 0.5 for its two blocks + 0.5 for the grammar of the answer."""

    name = "format"
    bounds = (0.0, 1.0)

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses by 0, 0.5 or 1."""
        values = torch.tensor([response.answer.format_reward for response in responses])
        return Scores(values, tuple(malformed(response) for response in responses))


def _task_correctness(name: str, responses: Sequence[Response], measure: str | None) -> list[float]:
    """What one measure, by default the primary one, gives to the responses to one task; 0 where nothing can be read.

    What an evaluation has measured already is not measured again.
    """
    task = get_task(name)
    for response in responses:
        task.require(response.group)
    if measure is None and any(response.values is None for response in responses):
        return task.correctness(
            [response.group for response in responses],
            [response.answer for response in responses],
            [response.masks for response in responses],
        )
    key = measure or primary(task.measures())
    return [_mean(key, response) if task.answered(response.answer) else 0.0 for response in responses]


def _mean(measure: str, response: Response) -> float:
    """A measure of a response, averaged over its images."""
    rows = response.values
    if rows is None:
        task = get_task(response.group.task)
        rows = tuple(task.update(task.metrics(), response.group, response.answer, response.masks or ()))
    if any(measure not in row for row in rows):
        raise ValueError(
            f"{response.group.key}: {measure} is not known of this sample; take another measure for the reward"
        )
    return sum(row[measure] for row in rows) / len(rows)


def _fitting(task: str, measure: str) -> str:
    """The name of a measure that a response can be worth."""
    known = load_task(task).measures()
    fitting = [name for name, each in known.items() if each.per_image and not each.lower_is_better]
    if measure not in fitting:
        raise ValueError(f"correctness of {task} cannot be {measure!r}: take one of {', '.join(fitting)}")
    return measure


def malformed(response: Response) -> str | None:
    """Why a response does not keep the format, or None."""
    reason = response.answer.reason
    return f"cut off at the token limit: {reason}" if reason and response.truncated else reason


def _reason(response: Response, found: bool | None) -> str | None:
    """Why there is nothing to measure, or None where there is.

    Args:
        response: What is measured.
        found: Whether any of its masks has a pixel; None where it has no masks.
    """
    if not get_task(response.group.task).answered(response.answer):
        return malformed(response)
    if response.answer.labels and found is False:
        return "no mask: the segmenter found no pixel for any expression"
    return None
