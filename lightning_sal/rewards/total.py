"""The reward: the weighted sum of its terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_sal.inference.evidence import compose_answers
from lightning_sal.rewards.terms import Correctness, Format, Judged, RewardTerm, Scores
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.tasks import Answer


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """What B responses are worth, and why.

    Args:
        total: (B,) float32 on the CPU, the weighted sum of the terms.
        terms: Name of a term -> its (B,) float32 values on the CPU, before weighting.
        reasons: Name of a term -> its B reasons (one line or None).
        answers: What was read from the responses.
        masks: For each response the K predicted masks (N, H, W) bool of its images, where the segmenter put them.
    """

    total: Tensor
    terms: dict[str, Tensor]
    reasons: dict[str, tuple[str | None, ...]]
    answers: tuple[Answer, ...]
    masks: tuple[tuple[Tensor, ...], ...]


def join_rewards(parts: Sequence[RewardBatch]) -> RewardBatch:
    """What the responses of several batches are worth, as one batch; all have the same terms."""
    return RewardBatch(
        total=torch.cat([part.total for part in parts]),
        terms={name: torch.cat([part.terms[name] for part in parts]) for name in parts[0].terms},
        reasons={name: tuple(r for part in parts for r in part.reasons[name]) for name in parts[0].reasons},
        answers=tuple(answer for part in parts for answer in part.answers),
        masks=tuple(masks for part in parts for masks in part.masks),
    )


class Reward(nn.Module):
    """r = sum over terms of weight x value; by default r = 0.5 correctness + 0.5 format.

    Args:
        terms: The criteria; null takes correctness and format.
        weights: Name of a term -> its weight, for every term; null gives all the same weight, 1 in sum.
    """

    def __init__(self, terms: list[RewardTerm] | None = None, weights: dict[str, float] | None = None) -> None:
        super().__init__()
        terms = [Correctness(), Format()] if terms is None else terms
        names = [term.name for term in terms]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"reward terms must be one or more, each with a name of its own, not {names}")
        self.terms = nn.ModuleDict({term.name: term for term in terms})
        self.weights = dict.fromkeys(names, 1 / len(names)) if weights is None else dict(weights)
        if set(self.weights) != set(names) or not all(map(math.isfinite, self.weights.values())):
            raise ValueError(f"reward weights {self.weights} must give each of {names} a finite number, and no other")

    def forward(
        self, groups: Sequence[ImageGroup], texts: Sequence[str], truncated: Tensor, segmenter: Segmenter
    ) -> RewardBatch:
        """Judge B responses; the segmenter is called once.

        Args:
            groups: B image groups, one a response; a group may come several times.
            texts: B responses.
            truncated: (B,) bool, True where a response hit the token limit.
            segmenter: Finds the masks of the expressions.

        Raises:
            ValueError: If the three are not equally many, or a term gives a value that is not finite.
        """
        if not len(groups) == len(texts) == len(truncated):
            raise ValueError(
                f"{len(groups)} groups, {len(texts)} texts and {len(truncated)} truncated flags: "
                "the reward needs one of each for a response"
            )
        answers, masks = compose_answers(groups, texts, segmenter)
        judged = [Judged(*parts) for parts in zip(groups, texts, answers, truncated.tolist(), masks, strict=True)]
        scores: dict[str, Scores] = {name: term(judged) for name, term in self.terms.items()}
        terms = {name: score.values.detach().float().cpu() for name, score in scores.items()}
        for name, values in terms.items():
            for item, value in zip(judged, values.tolist(), strict=True):
                if not math.isfinite(value):
                    raise ValueError(f"{item.group.key}: reward term '{name}' gave {value}; it must be finite")
        return RewardBatch(
            total=sum((self.weights[name] * values for name, values in terms.items()), torch.zeros(len(judged))),
            terms=terms,
            reasons={name: score.reasons for name, score in scores.items()},
            answers=answers,
            masks=masks,
        )
