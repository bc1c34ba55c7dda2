"""What an RL step samples and learns from, and what it leaves behind for callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_sal.inference.responses import Response
from lightning_sal.objectives import token_confidence
from lightning_sal.policy.log_probs import TokenScores
from lightning_sal.policy.prompts import Prompts
from lightning_sal.rewards import RewardBatch
from lightning_sal.rewards.total import join_rewards
from lightning_sal.samples import ImageGroup, Rollout, join_rollouts


@dataclass(slots=True)
class RolloutRecord:
    """What one RL step did, for callbacks to log and to draw.

    Legend: B = P G rows, the G responses to a prompt side by side; C hidden size.

    Args:
        groups: B image groups, one a response: each of the P groups comes G times.
        rollout: The sampled responses.
        responses: They, with what the reward needed of them.
        rewards: What they are worth.
        confidence: (B,) in [0, 1], on the CPU, like the three below.
        advantages: (B,); 0 for responses of groups that the update left out.
        scored: (B,) bool; False for responses that no pass was spent on, since they have no gradient.
        entropy: (B,) mean entropy in nats of what the tokens of a response were drawn from; 0 where not scored.
        embeddings: (B, C) hidden states of the last layer at the last token of each response; 0 where not scored.
        seconds: Phase -> wall time.
    """

    groups: tuple[ImageGroup, ...]
    rollout: Rollout
    responses: Sequence[Response]
    rewards: RewardBatch
    confidence: Tensor
    advantages: Tensor
    scored: Tensor
    entropy: Tensor
    embeddings: Tensor
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return _lengths(self.responses)


@dataclass(slots=True)
class Experience:
    """Sampled responses with rewards, which an update is computed from; rows as in `RolloutRecord`.

    Args:
        groups: P image groups.
        prompts: They, encoded.
        rollout: The sampled responses.
        responses: They, with what the reward needed of them.
        rewards: What they are worth.
        selected: Indices of the prompts whose responses are trained on.
    """

    groups: tuple[ImageGroup, ...]
    prompts: Prompts
    rollout: Rollout
    responses: Sequence[Response]
    rewards: RewardBatch
    selected: list[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response, which the host knows without asking the device."""
        return _lengths(self.responses)


def _lengths(responses: Sequence[Response]) -> list[int]:
    return [0 if response.tokens is None else len(response.tokens) for response in responses]


def join_experience(rounds: Sequence[Experience]) -> Experience:
    """The rounds of a step as one; prompts are numbered on."""
    if len(rounds) == 1:
        return rounds[0]
    selected, before = [], 0
    for each in rounds:
        selected += [before + row for row in each.selected]
        before += len(each.groups)
    return Experience(
        tuple(group for each in rounds for group in each.groups),
        rounds[0].prompts.joined([each.prompts for each in rounds]),
        join_rollouts([each.rollout for each in rounds]),
        [response for each in rounds for response in each.responses],
        join_rewards([each.rewards for each in rounds]),
        selected,
    )


class ConfidenceMeasure(NamedTuple):
    """How the confidence is taken that advantages compare rewards with.

    Args:
        mean: Of (n, T) log-probabilities and a mask, (n,) in [0, 1].
        tokens: (B, T) bool, the tokens that it is the mean of.
    """

    mean: Callable[[Tensor, Tensor], Tensor]
    tokens: Tensor


@dataclass(slots=True)
class OldPolicy:
    """What the policy and its reference gave for sampled responses before the first update.

    Rows are filled by the forward passes of the first update itself, so that on-policy the ratio is exactly 1.

    Args:
        logp: (B, T) log-probabilities in nats, 0 until a row is scored.
        confidence: (B,) in [0, 1], that of the sampler until a row is scored.
        measure: How `compared` is taken.
        compared: (B,) the confidence that advantages compare rewards with, likewise.
        reference: (B, T) log-probabilities of the policy without adapters; None where none is needed.
        scored: (B,) bool.
        entropy: (B,) mean over the tokens of a response in nats, 0 until a row is scored.
        embeddings: (B, C) hidden states at the last token of a response, float32, 0 until a row is scored.
    """

    logp: Tensor
    confidence: Tensor
    measure: ConfidenceMeasure
    compared: Tensor
    reference: Tensor | None
    scored: Tensor
    entropy: Tensor
    embeddings: Tensor

    @classmethod
    def of(cls, rollout: Rollout, measure: ConfidenceMeasure, width: int, *, reference: bool) -> OldPolicy:
        """Of a rollout of which nothing is scored yet; `width` is C."""
        empty = torch.zeros_like(rollout.logp)
        plain: dict[str, Any] = {"dtype": torch.float32, "device": empty.device}
        return cls(
            logp=empty,
            confidence=token_confidence(rollout.logp, rollout.mask),
            measure=measure,
            compared=measure.mean(rollout.logp, measure.tokens),
            reference=torch.zeros_like(empty) if reference else None,
            scored=torch.zeros(len(empty), dtype=torch.bool, device=empty.device),
            entropy=torch.zeros(len(empty), **plain),
            embeddings=torch.zeros(len(empty), width, **plain),
        )

    def fill(self, rows: Tensor, scores: TokenScores, mask: Tensor) -> None:
        """Put down what a pass, with entropy, says of some rows (n,); mask (n, T)."""
        assert scores.entropy is not None
        self.logp[rows, : mask.shape[1]] = scores.logp.detach().to(self.logp.dtype)
        self.confidence[rows] = token_confidence(scores.logp, mask).to(self.confidence.dtype)
        compared = self.measure.mean(scores.logp, mask & self.measure.tokens[rows, : mask.shape[1]])
        self.compared[rows] = compared.to(self.compared.dtype)
        self.scored.index_fill_(0, rows, True)
        self.entropy[rows] = (scores.entropy.detach().sum(1) / mask.sum(1).clamp(min=1)).float()
        self.embeddings[rows] = scores.last.float()
