"""What a sampler offers, and the default one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from lightning_sal.policy.policy import Policy
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samples import ImageGroup, Rollout


class Sampler(Protocol):
    """Samples responses under the policy's weights as they are now.

    `exact` says that its log-probabilities are those of `Policy.score` up to rounding. Where they are not (other kernels,
    another precision), the loss weighs each token by the ratio of the two policies.
    """

    exact: bool

    def sample(
        self,
        policy: Policy,
        groups: Sequence[ImageGroup],
        prompts: Prompts,
        *,
        max_new_tokens: int,
        responses: int,
        temperature: float,
        generator: torch.Generator,
    ) -> Rollout:
        """G responses to each of P prompts, side by side.

        Args:
            policy: Whose responses they are.
            groups: P image groups.
            prompts: They, encoded.
            max_new_tokens: Limit of response tokens.
            responses: G.
            temperature: > 0.
            generator: Source of randomness, the same for the same seed, step and rank.

        Returns:
            P G responses; `logp` under the policy that sampled.
        """
        ...


class PolicySampler:
    """The policy samples itself."""

    exact = True

    def sample(
        self,
        policy: Policy,
        groups: Sequence[ImageGroup],
        prompts: Prompts,
        *,
        max_new_tokens: int,
        responses: int,
        temperature: float,
        generator: torch.Generator,
    ) -> Rollout:
        """See `Sampler.sample`."""
        return policy.sample(
            prompts,
            max_new_tokens,
            responses=responses,
            temperature=temperature,
            generator=generator,
        )
