"""A reward of your own: expressions of few words.

    PYTHONPATH=examples lightning fit --config conf/quickstart.yaml --config examples/new_reward.yaml

A term of the reward is one class: a `name`, and `forward`, which gives each response a value and, where there is something
to say, a reason. YAML names it by its class_path and gives it a weight; TensorBoard then shows `train/reward/brevity`, and
its reasons stand in the rollout panels. State that must survive a stop goes into buffers, which checkpoints keep.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_sal.rewards import Response, RewardTerm, Scores


class Brevity(RewardTerm):
    """Share of the expressions of a response that are at most so many words long; 0 without an expression.

    Args:
        words: The most words of a short expression, >= 1; `[semantic]` is none.
    """

    name = "brevity"
    bounds = (0.0, 1.0)  # without which CGPO, whose rewards stand beside a confidence in [0, 1], refuses it

    def __init__(self, words: int = 3) -> None:
        super().__init__()
        if words < 1:
            raise ValueError(f"Brevity: words must be at least 1, not {words}")
        self.words = words

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1]."""
        values, reasons = [], []
        for response in responses:
            expressions = response.answer.labels
            long = [text for text in expressions if len(text.removeprefix("[semantic] ").split()) > self.words]
            values.append(1 - len(long) / len(expressions) if expressions else 0.0)
            reasons.append(f"more than {self.words} words: {long[0]}" if long else None)
        return Scores(torch.tensor(values), tuple(reasons))
