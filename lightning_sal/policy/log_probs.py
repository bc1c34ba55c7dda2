"""Log-probabilities of chosen tokens, and entropies, without a (tokens x vocabulary) tensor of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lightning_sal.transfer import moved

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


def reading_rows(prompts: int, responses: int, steps: int, device: torch.device) -> Tensor:
    """Where hidden states stand that read the tokens of responses, among those from the ends of P prompts on, flattened.

    Args:
        prompts: P.
        responses: G, behind each prompt.
        steps: T, of a response.
        device: Where the result is wanted.

    Returns:
        (P G, T + 1) rows of (P (1 + G T),): the prompt's end, then each token of the response. Each predicts the next.
    """
    own = torch.arange(responses * steps, device=device).view(responses, steps) + 1
    read = torch.cat([own.new_zeros(responses, 1), own], dim=1)
    ends = torch.arange(prompts, device=device) * (1 + responses * steps)
    return (ends[:, None, None] + read).flatten(0, 1)


def places(mask: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """(N,) where a (B, T) bool mask that begins each row is True, flattened.

    Args:
        mask: The mask.
        lengths: True values of each row; None waits for the device to tell.
    """
    if lengths is None:
        return mask.flatten().nonzero()[:, 0]
    known = torch.arange(mask.shape[1]) < torch.tensor(lengths)[:, None]
    return moved(known.flatten().nonzero()[:, 0], mask.device)


def log_probs_and_entropy(
    logits: Callable[[Tensor], Tensor], states: Tensor, ids: Tensor, size: int, entropy: Entropy | None = None
) -> tuple[Tensor, Tensor | None]:
    """log p(token) = z_token - logsumexp(z), and the entropy, in chunks that the backward pass computes again.

    Args:
        logits: (N, C) hidden states -> (N, V) logits z; -inf where p = 0.
        states: (N, C) hidden states that predict tokens.
        ids: (N,) the tokens.
        size: Tokens of a chunk.
        entropy: Whether it is wanted, and with its gradient.

    Returns:
        (N,) log-probabilities and (N,) entropies or None, in nats.
    """

    def part(states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return _Scores.apply(logits(states), ids, entropy)  # type: ignore[return-value]

    if len(states) <= size:
        logp, entropies = part(states, ids)
    else:
        pieces = zip(states.split(size), ids.split(size), strict=True)
        found = zip(*(checkpoint(part, *piece, use_reentrant=False) for piece in pieces), strict=True)  # type: ignore[misc]
        logp, entropies = (torch.cat(column) for column in found)
    return logp, entropies if entropy else None


class _Scores(torch.autograd.Function):
    """(N, V) logits and (N,) ids -> log p of the ids, and H = -sum_v p_v log p_v, to which p = 0 adds 0; keeps p alone."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, entropy: Entropy | None) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(1)
        chosen = log_p.gather(1, ids[:, None])[:, 0]
        p, entropies = log_p, torch.zeros_like(chosen)
        if entropy or ctx.needs_input_grad[0]:
            p = log_p.exp()
        if entropy:
            entropies = log_p.clamp_(min=torch.finfo(log_p.dtype).min).mul_(p).sum(1).neg_()
        if entropy != "gradient":
            ctx.mark_non_differentiable(entropies)
        ctx.save_for_backward(p, ids, entropies)
        ctx.entropy = entropy
        return chosen, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_entropy: Tensor) -> tuple[Tensor, None, None]:
        p, ids, entropies = ctx.saved_tensors
        if ctx.entropy == "gradient":  # dH / dz_v = -p_v (log p_v + H)
            slope = torch.special.xlogy(p, p).mul_(-of_entropy[:, None])
            slope.addcmul_(p, (grad + of_entropy * entropies)[:, None], value=-1)
        else:
            slope = p * -grad[:, None]
        return slope.scatter_add_(1, ids[:, None], grad[:, None]), None, None
