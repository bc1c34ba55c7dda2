"""Confidence-guided policy optimisation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_sal.modules.rollout import RolloutModule
from lightning_sal.objectives import cgpo_advantages


class CGPO(RolloutModule):
    """CGPO: one response a prompt, A = r - c.

    | advantage | ratio | clip | reduction |
    |---|---|---|---|
    | reward minus the policy's own confidence | token | (0.2, 0.2) | mean over tokens, then over responses |

    Where GRPO compares a response with others to the same prompt, CGPO compares its reward with how confident the policy was
    of it: no group, no reference model. SFT steps in between (ISR) stand in for a KL penalty.

    Args:
        **kwargs: As for `RolloutModule`; the total of the reward must lie in [0, 1].

    Raises:
        ValueError: If it may not, by the bounds and the weights of the terms.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reward.require_probability("CGPO")

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        return cgpo_advantages(rewards, confidence)
