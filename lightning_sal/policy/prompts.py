"""Encoded prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.transfer import indices


class Prompts(ABC):
    """P encoded prompts of at most L tokens, padded left; masks are True on real tokens."""

    ids: Any
    """(P, L) token ids."""
    mask: Any
    """(P, L) bool."""
    lengths: tuple[int, ...]
    """Tokens of each prompt."""

    def __len__(self) -> int:
        return len(self.lengths)

    def by_length(self) -> list[int]:
        """The prompts in the order of their lengths, so that neighbours need little padding."""
        return sorted(range(len(self)), key=lambda row: self.lengths[row])

    @abstractmethod
    def select(self, rows: Sequence[int]) -> Any:
        """Some of the prompts, with no more padding than the longest of them needs; one may be named several times."""

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Any]) -> Any:
        """All prompts of several encodings, padded left to the longest of them."""


@dataclass(frozen=True)
class FastPrompts(Prompts):
    """P encoded prompts of at most L tokens, padded left; masks are True on real tokens.

    Args:
        ids: (P, L) token ids.
        mask: (P, L) bool.
        positions: (3, P, L) M-RoPE positions: time, height, width.
        following: (P,) position of the first response token.
        visual: P tensors (visual tokens of the prompt, C), features of its images in the order of their placeholders;
            for Qwen3-VL, whose first layers get features of earlier blocks, all side by side: (tokens, C (1 + blocks)).
        lengths: Tokens of each prompt.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    following: Tensor
    visual: tuple[Tensor, ...]
    lengths: tuple[int, ...]

    def select(self, rows: Sequence[int]) -> FastPrompts:
        """See `Prompts.select`."""
        lengths = tuple(self.lengths[row] for row in rows)
        width, at = max(lengths), indices(rows, self.ids.device)
        return FastPrompts(
            self.ids[at, -width:],
            self.mask[at, -width:],
            self.positions[:, at, -width:],
            self.following[at],
            tuple(self.visual[row] for row in rows),
            lengths,
        )

    @classmethod
    def joined(cls, parts: Sequence[FastPrompts]) -> FastPrompts:
        """See `Prompts.joined`."""
        width = max(part.ids.shape[1] for part in parts)

        def padded(tensors: Sequence[Tensor], dim: int) -> Tensor:
            return torch.cat([F.pad(tensor, (width - tensor.shape[-1], 0)) for tensor in tensors], dim=dim)

        return FastPrompts(
            padded([part.ids for part in parts], 0),
            padded([part.mask for part in parts], 0),
            padded([part.positions for part in parts], 1),
            torch.cat([part.following for part in parts]),
            tuple(features for part in parts for features in part.visual),
            tuple(length for part in parts for length in part.lengths),
        )
