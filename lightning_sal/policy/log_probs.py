"""Log-probabilities of chosen tokens, and entropies, without a (tokens x vocabulary) tensor of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Entropy = Literal["value", "gradient"]  # whether gradients flow through it


class TokenScores(NamedTuple):
    """What one pass of the policy says of B responses of T tokens.

    Args:
        logp: (B, T) log-probabilities of the tokens in nats, exactly 0 outside the mask.
        entropy: (B, T) entropy in nats of what each token was drawn from, exactly 0 outside the mask; None where it was
            not asked for.
        last: (B, C) hidden states behind the last norm at the last token of each response, without gradient; what they
            are for a response without tokens means nothing.
    """

    logp: Tensor
    entropy: Tensor | None
    last: Tensor


def token_entropy(log_p: Tensor) -> Tensor:
    """H = -sum_v p_v log p_v, where what has p = 0 adds 0 and takes no gradient.

    Args:
        log_p: (N, V) log-probabilities; -inf where p = 0.

    Returns:
        (N,) in nats, in [0, log V].
    """
    return -(log_p.exp() * log_p.masked_fill(log_p == float("-inf"), 0.0)).sum(dim=1)


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
    return log_probs_and_entropy(logits, hidden, tokens, mask, size)[0]


def log_probs_and_entropy(
    logits: Callable[[Tensor], Tensor],
    hidden: Tensor,
    tokens: Tensor,
    mask: Tensor,
    size: int,
    entropy: Entropy | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`chosen_log_probs`, and from the same logits their entropy.

    Args:
        logits: (N, C) hidden states -> (N, V) logits z.
        hidden: (B, T, C) hidden states that predict the tokens.
        tokens: (B, T) ids; where `mask` is False they are not read.
        mask: (B, T) bool.
        size: Tokens of a chunk.
        entropy: Whether it is wanted, and with its gradient.

    Returns:
        (B, T) log-probabilities and (B, T) entropies or None, in nats, exactly 0 where `mask` is False.
    """

    def part(states: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        log_p = logits(states).log_softmax(dim=1)
        chosen = log_p.gather(1, ids[:, None])[:, 0]
        if entropy is None:
            return (chosen,)
        # Last, so that the backward pass, which computes a chunk again as far as it needs it, leaves the value out.
        with nullcontext() if entropy == "gradient" else torch.no_grad():
            return chosen, token_entropy(log_p)

    states, ids = hidden[mask], tokens[mask]
    if len(states) <= size:
        found = part(states, ids)
    else:
        pieces = zip(states.split(size), ids.split(size), strict=True)
        parts = [checkpoint(part, *piece, use_reentrant=False) for piece in pieces]
        found = tuple(torch.cat(column) for column in zip(*parts, strict=True))  # type: ignore[arg-type]
    empty = torch.zeros(mask.shape, dtype=found[0].dtype, device=hidden.device)
    logp, *rest = [empty.masked_scatter(mask, values) for values in found]
    return logp, rest[0] if rest else None
