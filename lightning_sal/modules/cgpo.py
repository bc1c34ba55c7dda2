"""Confidence-guided policy optimisation."""

from __future__ import annotations

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
    """

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        return cgpo_advantages(rewards, confidence)
