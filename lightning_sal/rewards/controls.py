"""Rewards that know nothing of where a response looks: what an alignment must be told apart from.

With weight 0 they are measured beside it; in its place they are the arm that it is compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.regions import Annotated
from lightning_sal.rewards.terms import RewardTerm, Scores
from lightning_sal.transfer import read


class Chance(RewardTerm):
    """The share of the pictures that the annotated regions cover: the alignment of a map that is the same everywhere."""

    name = "chance"
    bounds = (0.0, 1.0)

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1]."""
        masks = [[mask.any(0) for mask in Annotated()(response.group)] for response in responses]
        covered = read(*(torch.stack([mask.sum() for mask in each]).sum() for each in masks))
        shares = [int(some) / sum(mask.numel() for mask in each) for some, each in zip(covered, masks, strict=True)]
        return Scores(torch.tensor(shares), (None,) * len(responses))


class Brevity(RewardTerm):
    """1 - tokens / limit: what a reward would pay that is after short responses alone.

    Args:
        limit: Tokens at which it is 0, > 0; `max_new_tokens` of the run.
    """

    name = "brevity"
    bounds = (0.0, 1.0)

    def __init__(self, limit: int) -> None:
        super().__init__()
        if limit < 1:
            raise ValueError(f"Brevity: limit {limit} must be at least 1 token")
        self.limit = limit

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1]."""
        counts = [_tokens(response) for response in responses]
        known = torch.tensor([count is not None for count in counts], dtype=torch.bool)
        values = (1 - torch.tensor([count or 0 for count in counts]) / self.limit).clamp(0, 1) * known
        reasons = tuple("the number of tokens is not known" if count is None else None for count in counts)
        return Scores(values, reasons, known=known)


def _tokens(response: Response) -> int | None:
    """How many there are in a response, where that is known."""
    if response.tokens is not None:
        return len(response.tokens)
    return response.usage.output_tokens if response.usage else None


class Noise(RewardTerm):
    """A number in [0, 1) drawn from sample and text: the same text gets the same number, and nothing speaks for it."""

    name = "noise"
    bounds = (0.0, 1.0)

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1)."""
        drawn = [hashlib.sha256(f"{each.group.key}\n{each.text}".encode()).digest() for each in responses]
        values = [int.from_bytes(digest[:4]) / 2**32 for digest in drawn]
        return Scores(torch.tensor(values), (None,) * len(responses))
