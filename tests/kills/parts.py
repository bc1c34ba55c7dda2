"""What the fits that are killed consist of, where the real thing would only cost time."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_sal.rewards.terms import RewardTerm, Scores


class Wobbling(RewardTerm):
    """Tells any responses apart, and draws from each of the global generators."""

    name = "wobbling"
    bounds = (0.0, 1.0)

    def forward(self, responses):
        lengths = torch.tensor([len(each.text) % 7 / 7 for each in responses])
        drawn = torch.rand(len(responses)) + random.random() + np.random.random()  # noqa: NPY002
        return Scores((lengths + drawn) / 4, (None,) * len(responses))


class Blind:
    """Finds nothing."""

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        return [
            torch.zeros(len(texts), *image.shape[:2], dtype=torch.bool)
            for image, texts in zip(images, prompts, strict=True)
        ]
