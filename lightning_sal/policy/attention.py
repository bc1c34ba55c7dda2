"""Attention of the responses that share a prompt: each sees the prompt and itself, and nothing else is computed.

One sequence of a prompt and its G responses under a block mask has (L + G T)^2 scores, nearly all of them masked. Here the
prompt sees itself, and each response the prompt and itself: L^2 + G T (L + T).

Legend: P prompts, G responses a prompt, L prompt tokens (padded left), T response tokens (padded right), H heads, K key
heads, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHARED_PROMPT = "shared_prompt"


@dataclass(frozen=True, slots=True)
class SharedPrompt:
    """What tokens see of P prompts, each followed by its G responses.

    Args:
        prompt: (P, 1, L, L) additive, what prompt tokens see; None where no prompt is padded.
        said: (P G, 1, T H / K, L + T) additive, what response tokens see, once for each query head that shares a key
            head. Padding of a response needs no mask: it comes last, so no token sees it.
    """

    prompt: Tensor | None
    said: Tensor

    @classmethod
    def of(
        cls, real: Tensor, responses: int, steps: int, dtype: torch.dtype, *, padded: bool, shared: int
    ) -> SharedPrompt:
        """Of prompts with a (P, L) bool mask of `real` tokens, where `shared` = H / K query heads share a key head."""
        count, length = real.shape

        def causal(size: int) -> Tensor:
            return torch.ones(size, size, dtype=torch.bool, device=real.device).tril()

        own = causal(steps).repeat(shared, 1).expand(count, -1, -1)
        before = real[:, None].expand(-1, shared * steps, -1)
        said = torch.cat([before, own], dim=2).repeat_interleave(responses, dim=0)
        prompt = additive(causal(length) & real[:, None, None], dtype) if padded else None
        return cls(prompt, additive(said[:, None], dtype))


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where attention is allowed, the least number where not: a row of padding then has no NaN."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def shared_prompt_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_prompt: SharedPrompt | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: sdpa, which takes a `SharedPrompt` too.

    Args:
        module: The attention layer.
        query: (P, H, S, D).
        key: (P, K, S, D).
        value: (P, K, S, D).
        attention_mask: As for sdpa; not looked at where there is a `shared_prompt`.
        scaling: What scores are multiplied by.
        shared_prompt: What sees what, where S = L + G T; an argument of the model's forward that reaches each layer.
        **options: What sdpa takes.

    Returns:
        (P, S, H, D), and no weights.
    """
    if shared_prompt is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    count, heads, size, depth = query.shape
    rows, _, asked, seen = shared_prompt.said.shape
    steps = asked * key.shape[1] // heads
    length, responses = seen - steps, rows // count
    # Copies, so that what the gradient keeps of a prompt is not the whole sequence.
    asking, keys, values = (part[:, :, :length].contiguous() for part in (query, key, value))
    prompt, _ = sdpa_attention_forward(module, asking, keys, values, shared_prompt.prompt, scaling=scaling, **options)

    def behind(states: Tensor) -> Tensor:
        """(P, K, L + G T, D) -> (P G, K, L + T, D): a copy of the prompt before each response."""
        once = states[:, None, :, :length].expand(-1, responses, -1, -1, -1)
        return torch.cat([once, _apart(states[:, :, length:], responses)], dim=3).flatten(0, 1)

    # Query heads that share a key head stand among the queries, so that keys are never repeated.
    asking = _apart(query[:, :, length:], responses).reshape(rows, -1, asked, depth)
    said = F.scaled_dot_product_attention(
        asking, behind(key), behind(value), attn_mask=shared_prompt.said, scale=scaling
    )
    said = said.view(count, responses, heads, steps, depth).transpose(2, 3).reshape(count, size - length, heads, depth)
    return torch.cat([prompt, said], dim=1), None


def _apart(states: Tensor, responses: int) -> Tensor:
    """(P, H, G T, D) -> (P, G, H, T, D)."""
    return states.unflatten(2, (responses, -1)).transpose(1, 2)


AttentionInterface.register(SHARED_PROMPT, shared_prompt_attention)
AttentionMaskInterface.register(SHARED_PROMPT, sdpa_mask)
