"""How much better than expected a response was.

Legend: B responses, T tokens. Masks are True on response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_confidence(logp: Tensor, mask: Tensor) -> Tensor:
    """Mean probability that the policy gave the tokens it sampled: c_i = 1/|y_i| sum_t exp(logp_it).

    The mean of the probabilities, not the exponent of the mean log-probability. No gradient flows through it.

    Args:
        logp: (B, T) log-probabilities in nats.
        mask: (B, T) bool, True on response tokens.

    Returns:
        (B,) confidence in [0, 1]; 0 for a row without tokens.
    """
    weight = mask.to(logp.dtype)
    probability = torch.where(mask, logp.detach(), -torch.inf).exp()
    return probability.sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def cgpo_advantages(rewards: Tensor, confidence: Tensor) -> Tensor:
    """Confidence-guided advantage of a single response: A = r - c, with c detached (CGPO).

    A response earns credit for what its reward exceeds the policy's own confidence in it; no group, no critic.

    Args:
        rewards: (B,) rewards in [0, 1].
        confidence: (B,) confidence in [0, 1].

    Returns:
        (B,) advantages in [-1, 1].
    """
    return rewards - confidence.detach()
