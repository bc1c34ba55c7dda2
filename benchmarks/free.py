"""A reward and a segmenter that cost nothing, so that what is timed is the policy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sal.rewards import RewardTerm, Scores


def worth(text: str) -> float:
    """A reward that differs within a group."""
    return min(1.0, len(set(text)) / 100)


class Worth(RewardTerm):
    """`worth` of each response."""

    name = "worth"
    bounds = (0.0, 1.0)

    def forward(self, responses: Any) -> Scores:
        return Scores(torch.tensor([worth(item.text) for item in responses]), (None,) * len(responses))


class NoSegmenter:
    """Empty masks."""

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        """One (E, H, W) bool an image, False everywhere."""
        return [
            torch.zeros(len(texts), *image.shape[:2], dtype=torch.bool)
            for image, texts in zip(images, prompts, strict=True)
        ]
