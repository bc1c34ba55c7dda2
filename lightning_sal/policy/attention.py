"""What each token sees: alone behind its prompt, or beside others that share the prompt.

One sequence of a prompt and its G responses under a block mask has (L + G T)^2 scores, nearly all of them masked. In
`SharedPrompt` the prompt sees itself, and each response the prompt and itself: L^2 + G T (L + T).

Legend: P prompts, G responses a prompt, L prompt tokens (padded left), T response tokens (padded right), S tokens of a
sequence, H heads, K key heads, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class View(Protocol):
    """What tokens see in a forward pass."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Attention of one layer.

        Args:
            layer: Its number, from 0.
            query: (P, H, S, D).
            key: (P, K, S, D).
            value: (P, K, S, D).
            scale: What scores are multiplied by; None takes 1 / sqrt(D).

        Returns:
            (P, S, H, D).
        """
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """Each sequence sees itself, causally.

    Args:
        mask: (P, 1, S, S) additive; None where no sequence is padded on the left.
    """

    mask: Tensor | None

    @classmethod
    def of(cls, real: Tensor, following: int, dtype: torch.dtype, *, padded: bool) -> Alone:
        """Of prompts with a (P, L) bool mask of `real` tokens, each before so many tokens `following`.

        Padding of what follows needs no mask: it comes last, so no token sees it.
        """
        if not padded:
            return cls(None)
        real = F.pad(real, (0, following), value=True)
        return cls(additive(_causal(real.shape[1], real.device) & real[:, None, None], dtype))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        return _attend(query, key, value, self.mask, scale)


@dataclass(frozen=True, slots=True)
class SharedPrompt:
    """P prompts, each followed by its G responses: S = L + G T.

    Args:
        prompt: (P, 1, L, L) additive, what prompt tokens see; None where no prompt is padded.
        response: (P G, 1, T H / K, L + T) additive, what response tokens see, once for each query head that shares a key
            head. Padding of a response needs no mask: it comes last, so no token sees it.
    """

    prompt: Tensor | None
    response: Tensor

    @classmethod
    def of(
        cls, real: Tensor, responses: int, steps: int, dtype: torch.dtype, *, padded: bool, shared: int
    ) -> SharedPrompt:
        """Of prompts with a (P, L) bool mask of `real` tokens, where `shared` = H / K query heads share a key head."""
        count, length = real.shape
        own = _causal(steps, real.device).repeat(shared, 1).expand(count, -1, -1)
        before = real[:, None].expand(-1, shared * steps, -1)
        response = torch.cat([before, own], dim=2).repeat_interleave(responses, dim=0)
        prompt = additive(_causal(length, real.device) & real[:, None, None], dtype) if padded else None
        return cls(prompt, additive(response[:, None], dtype))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        count, heads, size, depth = query.shape
        rows, _, asked, seen = self.response.shape
        steps = asked * key.shape[1] // heads
        length, responses = seen - steps, rows // count
        # Copies, so that what the gradient keeps of a prompt is not the whole sequence.
        first, keys, values = (part[:, :, :length].contiguous() for part in (query, key, value))
        prompt = _attend(first, keys, values, self.prompt, scale)

        def behind(states: Tensor) -> Tensor:
            """(P, K, L + G T, D) -> (P G, K, L + T, D): a copy of the prompt before each response."""
            once = states[:, None, :, :length].expand(-1, responses, -1, -1, -1)
            return torch.cat([once, _split(states[:, :, length:], responses)], dim=3).flatten(0, 1)

        # Query heads that share a key head stand among the queries, so that keys are never repeated.
        asking = _split(query[:, :, length:], responses).reshape(rows, -1, asked, depth)
        response = F.scaled_dot_product_attention(
            asking, behind(key), behind(value), attn_mask=self.response, scale=scale
        )
        response = response.view(count, responses, heads, steps, depth).transpose(2, 3)
        return torch.cat([prompt, response.reshape(count, size - length, heads, depth)], dim=1)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where attention is allowed, the least number where not: a row of padding then has no NaN."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """(P, S, H, D): causal where there is no mask."""
    if mask is None:
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    else:  # kernels that take a mask take no shared key heads
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return seen.transpose(1, 2)


def _causal(size: int, device: torch.device) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()


def _split(states: Tensor, responses: int) -> Tensor:
    """(P, H, G T, D) -> (P, G, H, T, D)."""
    return states.unflatten(2, (responses, -1)).transpose(1, 2)
