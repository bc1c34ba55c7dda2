"""The loss of supervised fine-tuning."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.objectives.numerics import at_least_one, full_precision


def sft_loss(logp: Tensor, mask: Tensor, *, total_tokens: Tensor | float | None = None) -> Tensor:
    """Token cross-entropy on the response: -1/N sum_it logp_it.

    Args:
        logp: (B, T) log-probabilities of the annotated tokens in nats; half precision is summed in float32.
        mask: (B, T) bool, True on response tokens; prompts do not count.
        total_tokens: N, the tokens of the whole optimisation step on all ranks; by default those of this batch.

    Returns:
        Scalar loss in nats a token; 0 where nothing is counted.
    """
    logp = full_precision(logp)
    weight = mask.to(logp.dtype)
    count = weight.sum() if total_tokens is None else total_tokens
    return -(logp * weight).sum() / at_least_one(count)
