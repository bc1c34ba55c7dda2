"""Choosing tokens inside of `generate`.

Legend: B responses of T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_sal.policy.decoding.state import chosen


class Choosing:
    """A logits processor that draws each token by a number of its own, as the fast path does, and keeps its probability.

    All other logits become -inf, so that `generate`, which takes the likeliest, takes the one that was drawn.

    Args:
        predicted: (B, V) logits of the model -> logits that are drawn from.
        draws: (B, T) uniform on [0, 1); None takes the likeliest token.
        told: Gets the (B,) tokens of each step.
    """

    wanted = True
    """Whether anyone still waits for the rest."""

    def __init__(
        self,
        predicted: Callable[[Tensor], Tensor],
        draws: Tensor | None,
        told: Callable[[Tensor], None] = lambda _: None,
    ) -> None:
        self.predicted, self.told = predicted, told
        self.draws = None if draws is None else draws.clamp(max=1 - 2.0**-22)
        self.probabilities: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) -> (B, V), finite at the token that was drawn alone."""
        step = len(self.probabilities)
        drawn = None if self.draws is None else self.draws[:, min(step, self.draws.shape[1] - 1), None]
        token, probability = chosen(self.predicted(scores)[:, None], drawn)  # (B, 1): one response a row
        self.probabilities.append(probability[:, 0])
        self.told(token[:, 0])
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0.0)

    def unwanted(self, ids: Tensor, scores: Any) -> Tensor:
        """A stopping criterion: (B,) True once nobody waits any more."""
        return torch.full((len(ids),), not self.wanted, device=ids.device)

    def log_probs(self, steps: int) -> Tensor:
        """(B, T) float32 log-probabilities in nats of the tokens that were drawn."""
        return torch.stack(self.probabilities[:steps], dim=1).log().float()
