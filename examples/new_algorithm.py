"""An algorithm of your own: REINFORCE with a moving baseline.

    PYTHONPATH=examples lightning fit --config conf/quickstart.yaml --config examples/new_algorithm.yaml

An algorithm is one objective, a pure function of tensors, and a short module that names it. The module inherits sampling,
judging, micro-batches, several processes, and the logs; it may choose the level of the ratio, the clip and the reduction
too, as the table of docs/algorithms.md has them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_sal.modules import RolloutModule


def baseline_advantages(rewards: Tensor, baseline: Tensor) -> Tensor:
    """How much better a response was than responses were so far: A = r - b (Williams 1992).

    Args:
        rewards: (B,) rewards.
        baseline: Scalar b, detached.

    Returns:
        (B,) advantages.
    """
    return rewards - baseline.detach()


class Reinforce(RolloutModule):
    """REINFORCE: one response a prompt, A = r - b, b the moving mean of the rewards of earlier steps.

    | advantage | ratio | clip | reduction |
    |---|---|---|---|
    | reward minus the moving mean | token | (0.2, 0.2) | mean over all tokens of the step |

    With one update a rollout the ratio is 1 and the clip idle. Where CGPO compares a reward with the
    confidence in the response, this compares it with recent rewards, whatever the prompt.

    Args:
        decay: Weight of the past in the moving mean, in [0, 1): b <- decay b + (1 - decay) mean(r).
        start: b before the first step.
        **kwargs: As for `RolloutModule`.
    """

    reduction = "token_mean"

    def __init__(self, *, decay: float = 0.95, start: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= decay < 1:
            raise ValueError(f"Reinforce: decay must lie in [0, 1), not {decay}")
        self.decay = decay
        self.baseline: Tensor
        self.register_buffer("baseline", torch.tensor(start))  # a buffer, so that checkpoints keep it

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        return baseline_advantages(rewards, self.baseline)

    def after_updates(self, rewards: Tensor, confidence: Tensor) -> None:
        sums = torch.stack([rewards, torch.ones_like(rewards)]).sum(1)
        total, count = self.all_reduce(sums)  # alike on all ranks
        self.baseline.lerp_(total / count, 1 - self.decay)
        self.log("train/baseline", self.baseline.clone())
