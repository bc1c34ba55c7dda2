"""The terms of the reward: each judges B responses by one criterion and gives reasons beside its values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_sal.metrics.functional import instance_aligned_structure_measure, structure_measure
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Answer, get_task


@dataclass(frozen=True, slots=True)
class Judged:
    """A response with all that a term may judge it by.

    Args:
        group: The image group that it answers.
        text: The whole response.
        answer: What was read from it.
        truncated: Whether it hit the token limit before it ended.
        masks: K predicted masks (N, H, W) bool, composed by the task: N = 1 for regions, one an expression for
            instances.
    """

    group: ImageGroup
    text: str
    answer: Answer
    truncated: bool
    masks: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a term gives to B responses.

    Args:
        values: (B,) float.
        reasons: For each response a line that says why its value is what it is, where there is something to say.
    """

    values: Tensor
    reasons: tuple[str | None, ...]


class RewardTerm(nn.Module, ABC):
    """A criterion of the reward; a new one is a subclass that YAML names by its class_path.

    It is a module so that a term with state keeps it where the checkpoint finds it: in buffers, whose shapes stay.
    """

    name: ClassVar[str]

    @abstractmethod
    def forward(self, judged: Sequence[Judged]) -> Scores:
        """Score B responses."""


class Correctness(RewardTerm):
    """How well the predicted masks agree with the ground truth.

    Regions (SOD, CoSOD): the S-measure (Fan et al. 2017, arXiv:1708.00786) of their union, averaged over the K images.
    Instances (SIS): IASM, the mean S-measure after Hungarian matching, over matched and unmatched instances alike.
    A response without a readable expression gets 0.
    """

    name = "correctness"

    def forward(self, judged: Sequence[Judged]) -> Scores:
        """Score B responses in [0, 1].

        Raises:
            ValueError: If the ground truth of a group is unknown.
        """
        per_image: list[list[float]] = [[] for _ in judged]
        by_size: dict[torch.Size, list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
        for row, item in enumerate(judged):
            if item.group.masks is None:
                raise ValueError(f"{item.group.key}: correctness needs masks and this sample has none; give its masks")
            if not item.answer.expressions:
                continue
            for mask, target in zip(item.masks, item.group.masks, strict=True):
                target = target.to(mask.device)
                if get_task(item.group.task).instances:
                    per_image[row].append(float(instance_aligned_structure_measure(mask, target)))
                else:
                    by_size[mask.shape].append((row, mask, target))
        for same_size in by_size.values():
            rows, masks, targets = zip(*same_size, strict=True)
            for row, value in zip(rows, structure_measure(torch.cat(masks), torch.cat(targets)).tolist(), strict=True):
                per_image[row].append(value)
        values = torch.tensor([sum(scores) / len(scores) if scores else 0.0 for scores in per_image])
        return Scores(values, tuple(_no_mask(item) for item in judged))


class Format(RewardTerm):
    """Whether the response keeps the format: 0.5 for its two blocks + 0.5 for the grammar of the answer."""

    name = "format"

    def forward(self, judged: Sequence[Judged]) -> Scores:
        """Score B responses by 0, 0.5 or 1."""
        values = torch.tensor([item.answer.format_reward for item in judged])
        return Scores(values, tuple(_malformed(item) for item in judged))


def _malformed(item: Judged) -> str | None:
    reason = item.answer.reason
    return f"cut off at the token limit: {reason}" if reason and item.truncated else reason


def _no_mask(item: Judged) -> str | None:
    """Why there is nothing to measure, or None where there is."""
    if not item.answer.expressions:
        return _malformed(item)
    if not any(mask.any() for mask in item.masks):
        return "no mask: the segmenter found no pixel for any expression"
    return None
