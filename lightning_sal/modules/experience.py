"""What an RL step samples and learns from, and what it leaves behind for callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_sal.inference.responses import Response
from lightning_sal.objectives import token_confidence
from lightning_sal.policy.prompts import Prompts, join_prompts
from lightning_sal.rewards import RewardBatch
from lightning_sal.rewards.total import join_rewards
from lightning_sal.samples import ImageGroup, Rollout, join_rollouts


@dataclass(slots=True)
class RolloutRecord:
    """What one RL step did, for callbacks to log and to draw.

    Legend: B = P G rows, the G responses to a prompt side by side.

    Args:
        groups: B image groups, one a response: each of the P groups comes G times.
        rollout: The sampled responses.
        responses: They, with what the reward needed of them.
        rewards: What they are worth.
        confidence: (B,) in [0, 1].
        advantages: (B,); 0 for responses that the update left out.
        seconds: Phase -> wall time.
    """

    groups: tuple[ImageGroup, ...]
    rollout: Rollout
    responses: Sequence[Response]
    rewards: RewardBatch
    confidence: Tensor
    advantages: Tensor
    seconds: dict[str, float] = field(default_factory=dict)


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
        join_prompts([each.prompts for each in rounds]),
        join_rollouts([each.rollout for each in rounds]),
        [response for each in rounds for response in each.responses],
        join_rewards([each.rewards for each in rounds]),
        selected,
    )


@dataclass(slots=True)
class OldPolicy:
    """What the policy and its reference gave for sampled responses before the first update.

    Rows are filled by the forward passes of the first update itself, so that on-policy the ratio is exactly 1.

    Args:
        logp: (B, T) log-probabilities in nats, 0 until a row is scored.
        confidence: (B,) in [0, 1], that of the sampler until a row is scored.
        reference: (B, T) log-probabilities of the policy without adapters; None where none is needed.
    """

    logp: Tensor
    confidence: Tensor
    reference: Tensor | None

    @classmethod
    def of(cls, rollout: Rollout, *, reference: bool) -> OldPolicy:
        """Of a rollout of which nothing is scored yet."""
        empty = torch.zeros_like(rollout.logp)
        confidence = token_confidence(rollout.logp, rollout.mask)
        return cls(empty, confidence, torch.zeros_like(empty) if reference else None)
