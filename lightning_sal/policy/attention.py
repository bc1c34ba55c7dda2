"""What each token sees: alone behind its prompt, or beside others that share the prompt.

One sequence of a prompt and its G responses under a block mask has (L + G T)^2 scores, nearly all of them masked. In
`SharedPrompt` the prompt sees itself, and each response the prompt and itself: L^2 + G T (L + T). Nothing is masked there
for padding: prompts are attended in runs of one length, each from its first real token on, so that causal kernels do.

Legend: P prompts, G responses a prompt, L prompt tokens (padded left), T response tokens (padded right), S tokens of a
sequence, H heads, K key heads, D their width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.merged_attention import attend_behind, can_merge


class View(Protocol):
    """What tokens see in a forward pass."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Attention of one layer.

        Args:
            layer: Its number, from 0.
            query: (P, H, S, D); or (P, H, 1 + G T, D) from the end of the prompt on, where nothing else is asked for.
            key: (P, K, S, D).
            value: (P, K, S, D).
            scale: What scores are multiplied by; None takes 1 / sqrt(D).

        Returns:
            (P, S, H, D), or (P, 1 + G T, H, D).
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """Each sequence sees itself, causally; padding sees nothing, and its rows are 0.

    Padding of what follows a prompt comes last, so no token sees it.

    Args:
        padding: Of each sequence, how many tokens of padding it begins with; empty where none does.
    """

    padding: tuple[int, ...] = ()

    @classmethod
    def of(cls, lengths: Sequence[int], width: int) -> Alone:
        """Of prompts of so many real tokens, padded to a width."""
        return cls(_padding(lengths, width))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        if query.shape[2] < key.shape[2]:  # one response, behind a prompt of which the end alone is asked
            length = key.shape[2] - query.shape[2] + 1
            return SharedPrompt(length, 1, self.padding).attend(layer, query, key, value, scale)
        found = []
        for start, q, k, v in _runs(self.padding, query, key, value):
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
            found.append(F.pad(seen, (0, 0, start, 0)) if start else seen)
        return _joined(found).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class SharedPrompt:
    """P prompts, each followed by its G responses: S = L + G T. Padding is as in `Alone`.

    Args:
        length: L.
        responses: G.
        padding: As for `Alone`.
    """

    length: int
    responses: int
    padding: tuple[int, ...] = ()

    @classmethod
    def of(cls, lengths: Sequence[int], width: int, responses: int) -> SharedPrompt:
        """Of prompts of so many real tokens, padded to a width, and G responses to each."""
        return cls(width, responses, _padding(lengths, width))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        behind = attend_behind if can_merge(query) else _attend_copies
        found = []
        for start, q, k, v in _runs(self.padding, query, key, value):
            seen = behind(q, k, v, self.length - start, self.responses, scale)
            padding = query.shape[2] - seen.shape[1]
            found.append(F.pad(seen, (0, 0, 0, 0, padding, 0)) if padding else seen)
        return _joined(found)


def _padding(lengths: Sequence[int], width: int) -> tuple[int, ...]:
    padding = tuple(width - length for length in lengths)
    return padding if any(padding) else ()


def _runs(padding: Sequence[int], *states: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Neighbours of equal padding: how much it is, and of each of the states (P, heads, S, D) the part behind it."""
    if not padding:
        query, key, value = states
        yield 0, query, key, value
        return
    size = max(part.shape[2] for part in states)
    runs = [(start, len(list(run))) for start, run in groupby(padding)]
    # Split, not sliced: the gradient of each slice would be as large as the whole.
    columns = [state.split([count for _, count in runs]) for state in states]
    for (start, _), *parts in zip(runs, *columns, strict=True):
        query, key, value = (part[:, :, start - size :] for part in parts)  # fewer queries where the end is asked
        yield start, query, key, value


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend_copies(
    query: Tensor, key: Tensor, value: Tensor, length: int, responses: int, scale: float | None
) -> Tensor:
    """`attend_behind` where no kernel tells its log-sum-exp: a copy of the prompt's keys before each response."""
    count, heads, size, depth = query.shape
    steps, shared, rows = (key.shape[2] - length) // responses, heads // key.shape[1], count * responses
    asked = size - responses * steps
    before = (key[:, :, :length], value[:, :, :length])
    prompt = F.scaled_dot_product_attention(
        query[:, :, :asked], *before, is_causal=asked == length, scale=scale, enable_gqa=True
    )

    def behind(states: Tensor) -> Tensor:
        """(P, K, L + G T, D) -> (P G, K, L + T, D)."""
        once = states[:, None, :, :length].expand(-1, responses, -1, -1, -1)
        return torch.cat([once, _split(states[:, :, length:], responses)], dim=3).flatten(0, 1)

    # Query heads that share a key head stand among the queries, so that keys are never repeated.
    asking = _split(query[:, :, asked:], responses).reshape(rows, -1, shared * steps, depth)
    allowed = torch.ones(steps, length + steps, dtype=torch.bool, device=query.device).tril(length)
    response = F.scaled_dot_product_attention(
        asking, behind(key), behind(value), attn_mask=allowed.repeat(shared, 1), scale=scale
    )
    response = response.view(count, responses, heads, steps, depth).transpose(2, 3)
    return torch.cat([prompt.transpose(1, 2), response.reshape(count, size - asked, heads, depth)], dim=1)


def _split(states: Tensor, responses: int) -> Tensor:
    """(P, H, G T, D) -> (P, G, H, T, D)."""
    return states.unflatten(2, (responses, -1)).transpose(1, 2)
