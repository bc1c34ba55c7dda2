"""The clipped policy loss, composed of ratio level, clip and reduction.

Legend: B responses, T tokens, r = exp(logp - logp_old), A advantages, m mask (True on response tokens).

Log-probabilities of half precision are taken to float32 before anything is computed of them, and log-ratios are clamped to
`MAX_LOG_RATIO`, so that no loss or gradient is infinite however far two policies lie apart.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_sal.objectives.numerics import at_least_one, full_precision

Ratio = Literal["token", "sequence"]
Reduction = Literal["sequence_mean", "token_mean", "constant"]
Surrogate = Literal["clipped", "weighted"]

MAX_LOG_RATIO = 20.0
"""Nats that a log-ratio may leave 0 by, beyond which it is constant and has no gradient; exp(20) is about 5e8. The bound of
verl (`compute_policy_loss_vanilla` and `kl_penalty_forward` of `verl/trainer/ppo/core_algos.py`)."""


def log_ratio(logp: Tensor, logp_old: Tensor, mask: Tensor, ratio: Ratio = "token") -> Tensor:
    """Log of the importance ratio of each token, or of each whole response.

    token: logp_it - logp_old_it. sequence: 1/|y_i| sum_t (logp_it - logp_old_it), the length-normalised ratio of GSPO
    (Zheng et al. 2025, arXiv:2507.18071). Either is clamped to +-`MAX_LOG_RATIO`.

    Args:
        logp: (B, T) log-probabilities under one policy, in nats, of any precision.
        logp_old: (B, T) the same under the other.
        mask: (B, T) bool, True on response tokens.
        ratio: Level of the ratio.

    Returns:
        (B, T) for "token", 0 outside the mask; (B, 1) for "sequence"; float32, or float64 where that was given.

    Raises:
        ValueError: For an unknown level.
    """
    difference = torch.where(mask, full_precision(logp) - full_precision(logp_old), 0.0)
    if ratio == "token":
        return _clamped(difference)
    if ratio == "sequence":
        return _clamped(difference.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1))
    raise ValueError(f"unknown ratio '{ratio}': use token or sequence")


def k3(logp: Tensor, logp_ref: Tensor, mask: Tensor) -> Tensor:
    """Estimate of the KL divergence to a reference at each token, exp(d) - d - 1 with d = logp_ref - logp.

    Unbiased and never negative (Schulman 2020, http://joschu.net/blog/kl-approx.html), as GRPO has it (Shao et al. 2024,
    arXiv:2402.03300). d is clamped to +-`MAX_LOG_RATIO`.

    Args:
        logp: (B, T) log-probabilities under the policy, in nats, of any precision.
        logp_ref: (B, T) the same under the reference.
        mask: (B, T) bool, True on response tokens.

    Returns:
        (B, T) in nats, >= 0; 0 outside the mask; float32, or float64 where that was given.
    """
    d = log_ratio(logp_ref, logp, mask)
    return d.exp() - d - 1


def check_dual_clip(dual_clip: float | None, surrogate: Surrogate) -> None:
    """Refuse what the second clip cannot be.

    Raises:
        ValueError: Unless it is above 1, and the surrogate has a minimum that it bounds.
    """
    if dual_clip is not None and surrogate != "clipped":
        raise ValueError(f"dual_clip {dual_clip} bounds the minimum of the clipped surrogate: {surrogate} has none")
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip {dual_clip} must be above 1, or null")


def policy_loss(
    logp: Tensor,
    logp_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ratio: Ratio = "token",
    reduction: Reduction = "sequence_mean",
    clip: tuple[float, float] = (0.2, 0.2),
    dual_clip: float | None = None,
    surrogate: Surrogate = "clipped",
    max_length: int | None = None,
    weights: Tensor | None = None,
    logp_ref: Tensor | None = None,
    beta: float = 0.0,
    unbiased_kl: bool = False,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
    total_sequences: Tensor | float | None = None,
    total_tokens: Tensor | float | None = None,
) -> Tensor:
    """Clipped policy-gradient loss (PPO, Schulman et al. 2017, arXiv:1707.06347).

    Per token l = -min(r A, clip(r, 1 - low, 1 + high) A) + beta (exp(d) - d - 1), d = logp_ref - logp: the k3 estimate
    of the KL divergence to a reference (GRPO, Shao et al. 2024, arXiv:2402.03300). The surrogate "weighted" has, in place
    of the minimum, -clip(r, 1 - low, 1 + high) A logp with no gradient through the clipped ratio, so that no token is
    held back (CISPO, MiniMax 2025, arXiv:2506.13585). An entropy bonus takes entropy_coef H off l (Mnih et al. 2016,
    arXiv:1602.01783). Then, with N the counts of the whole optimisation step on all ranks:

    - sequence_mean: 1/N_sequences sum_i 1/|y_i| sum_t l m (GRPO, GSPO, CGPO)
    - token_mean: 1/N_tokens sum_it l m (DAPO, Yu et al. 2025, arXiv:2503.14476)
    - constant: 1/(N_sequences max_length) sum_it l m (Dr.GRPO, Liu et al. 2025, arXiv:2503.20783)

    Args:
        logp: (B, T) log-probabilities under the policy being updated, in nats, of any precision; gradients flow through it.
        logp_old: (B, T) the same under the policy that sampled.
        advantages: (B,) one a response.
        mask: (B, T) bool, True on response tokens; a row without any contributes 0 to the sum and counts as a sequence.
        ratio: Level of the importance ratio.
        reduction: How tokens become one number.
        clip: (low, high), how far the ratio may leave 1 downwards and upwards.
        dual_clip: c > 1, the ratio from which on a response with A < 0 is pushed down no more: where A < 0 the minimum is at
            least c A (dual clip, Ye et al. 2020, arXiv:1912.09729); null for no such bound.
        surrogate: What becomes of ratio and advantage.
        max_length: The constant length, for reduction "constant" only.
        weights: (B, T) what each token's loss is multiplied by, before the KL term; null for 1. Corrects for a sampler whose
            policy is not quite the old one (Yao et al. 2025, truncated importance sampling).
        logp_ref: (B, T) log-probabilities under the reference policy; needed where beta > 0.
        beta: Weight of the KL term.
        unbiased_kl: Multiply the KL term by r, with its gradient. Its gradient is then, with ratio "token", that of the KL
            divergence of the policy to the reference, which it is not otherwise, even where r is 1 (DeepSeek-V3.2,
            DeepSeek-AI 2025, arXiv:2512.02556).
        entropy: (B, T) H, the policy's entropy at each token, in nats, with its gradient; needed where entropy_coef > 0.
        entropy_coef: Weight of the entropy bonus.
        total_sequences: Responses of the whole optimisation step; by default B.
        total_tokens: Response tokens of the whole optimisation step; by default those of this batch.

    Returns:
        Scalar loss, float32 at least.

    Raises:
        ValueError: For an unknown ratio, surrogate or reduction, a missing max_length, logp_ref or entropy, a dual_clip that
            is not above 1 or has no minimum to bound.
    """
    check_dual_clip(dual_clip, surrogate)
    logp = full_precision(logp)
    r = log_ratio(logp, logp_old.detach(), mask, ratio).exp()
    a = advantages.detach()[:, None]
    low, high = clip
    clipped = r.clamp(1 - low, 1 + high)
    if surrogate == "clipped":
        gain = torch.minimum(r * a, clipped * a)
        if dual_clip is not None:
            gain = torch.where(a < 0, torch.maximum(gain, dual_clip * a), gain)
        loss = -gain.expand_as(logp)
    elif surrogate == "weighted":
        loss = -clipped.detach() * a * logp
    else:
        raise ValueError(f"unknown surrogate '{surrogate}': use clipped or weighted")
    if weights is not None:
        loss = loss * weights.detach()
    if beta:
        if logp_ref is None:
            raise ValueError("policy_loss: beta > 0 needs logp_ref, the reference policy's log-probabilities")
        divergence = k3(logp, logp_ref.detach(), mask)
        loss = loss + beta * (r * divergence if unbiased_kl else divergence)
    if entropy_coef:
        if entropy is None:
            raise ValueError("policy_loss: entropy_coef > 0 needs entropy, the policy's entropy at each token")
        loss = loss - entropy_coef * full_precision(entropy)
    loss = torch.where(mask, loss, 0.0)
    sequences = logp.shape[0] if total_sequences is None else total_sequences
    if reduction == "sequence_mean":
        return (loss.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum() / at_least_one(sequences)
    if reduction == "token_mean":
        return loss.sum() / at_least_one(mask.sum() if total_tokens is None else total_tokens)
    if reduction == "constant":
        if max_length is None:
            raise ValueError("policy_loss: reduction 'constant' needs max_length")
        return loss.sum() / (at_least_one(sequences) * max_length)
    raise ValueError(f"unknown reduction '{reduction}': use sequence_mean, token_mean or constant")


def clip_fractions(
    logp: Tensor,
    logp_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ratio: Ratio = "token",
    clip: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Share of response tokens that the clip holds back: low (r < 1 - low, A < 0) and high (r > 1 + high, A > 0).

    Arguments as in `policy_loss`; two scalars in [0, 1].
    """
    r = log_ratio(logp.detach(), logp_old.detach(), mask, ratio).exp().expand_as(logp)
    a = advantages[:, None]
    count = mask.sum().clamp(min=1)
    held_low = (mask & (r < 1 - clip[0]) & (a < 0)).sum() / count
    held_high = (mask & (r > 1 + clip[1]) & (a > 0)).sum() / count
    return held_low, held_high


def _clamped(log: Tensor) -> Tensor:
    return log.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
