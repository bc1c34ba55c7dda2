"""What a sampler offers, and the default one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from lightning_sal.policy.policy import Policy
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samples import ImageGroup, Rollout

# A source of randomness for all prompts, or one for each, so that a response does not depend on what it is sampled with
Generators = torch.Generator | Sequence[torch.Generator]


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
        generator: Generators,
    ) -> Rollout:
        """G responses to each of P prompts, side by side.

        Args:
            policy: Whose responses they are.
            groups: P image groups.
            prompts: They, encoded.
            max_new_tokens: Limit of response tokens.
            responses: G.
            temperature: > 0 samples; 0 takes the likeliest token.
            generator: Source of randomness, or one for each prompt; none is drawn from at temperature 0.

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
        generator: Generators,
    ) -> Rollout:
        """See `Sampler.sample`."""
        return policy.sample(
            prompts,
            max_new_tokens,
            responses=responses,
            temperature=temperature,
            generator=generator,
        )
