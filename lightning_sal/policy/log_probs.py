"""Log-probabilities of chosen tokens without a (tokens x vocabulary) tensor of the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chosen_log_probs(
    logits: Callable[[Tensor], Tensor], hidden: Tensor, tokens: Tensor, mask: Tensor, size: int
) -> Tensor:
    """log p(token) = z_token - logsumexp(z) at response positions alone, in chunks that the backward pass computes again.

    Args:
        logits: (N, C) hidden states -> (N, V) logits z.
        hidden: (B, T, C) hidden states that predict the tokens.
        tokens: (B, T) ids; where `mask` is False they are not read.
        mask: (B, T) bool.
        size: Tokens of a chunk.

    Returns:
        (B, T) in nats, exactly 0 where `mask` is False.
    """

    def part(states: Tensor, ids: Tensor) -> Tensor:
        return logits(states).log_softmax(dim=1).gather(1, ids[:, None])[:, 0]

    states, ids = hidden[mask], tokens[mask]
    if len(states) <= size:
        found = part(states, ids)
    else:
        pieces = zip(states.split(size), ids.split(size), strict=True)
        found = torch.cat([checkpoint(part, *piece, use_reentrant=False) for piece in pieces])  # type: ignore[misc]
    return torch.zeros(mask.shape, dtype=found.dtype, device=hidden.device).masked_scatter(mask, found)
