"""How much better than expected a response was.

Legend: B responses, T tokens. Masks are True on response tokens. The responses to one prompt, a group, stand side by side.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_sal.objectives.numerics import full_precision


def token_confidence(logp: Tensor, mask: Tensor) -> Tensor:
    """Mean probability that the policy gave the tokens it sampled: c_i = 1/|y_i| sum_t exp(logp_it).

    The mean of the probabilities, not the exponent of the mean log-probability. No gradient flows through it.

    Args:
        logp: (B, T) log-probabilities in nats; half precision is summed in float32.
        mask: (B, T) bool, True on response tokens.

    Returns:
        (B,) confidence in [0, 1]; 0 for a row without tokens.
    """
    probability = torch.where(mask, full_precision(logp.detach()), -torch.inf).exp()
    return probability.sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def geometric_confidence(logp: Tensor, mask: Tensor) -> Tensor:
    """Exponent of the mean log-probability of the sampled tokens: c_i = exp(1/|y_i| sum_t logp_it).

    At most `token_confidence`, of whose probabilities it is the geometric mean: a single doubtful token weighs more. No
    gradient flows through it. Arguments and result as for `token_confidence`.
    """
    count = mask.sum(dim=1)
    total = torch.where(mask, full_precision(logp.detach()), 0.0).sum(dim=1)
    return torch.where(count > 0, (total / count.clamp(min=1)).exp(), 0.0)


def cgpo_advantages(rewards: Tensor, confidence: Tensor) -> Tensor:
    """Confidence-guided advantage of a single response: A = r - c, with c detached (CGPO).

    A response earns credit for what its reward exceeds the policy's own confidence in it; no group, no critic.

    Args:
        rewards: (B,) rewards in [0, 1].
        confidence: (B,) confidence in [0, 1].

    Returns:
        (B,) advantages in [-1, 1].
    """
    return rewards - confidence.detach()


class Moments(NamedTuple):
    """Of the values of a whole step, all ranks together; scalars in float64.

    Args:
        count: n, how many there are.
        low: The least of them.
        above: Mean of what they exceed it by, exactly 0 where all are equal.
        std: Their standard deviation, over n - 1; 0 where there is one.
    """

    count: Tensor
    low: Tensor
    above: Tensor
    std: Tensor


def moments_of(low: Tensor, sums: Tensor) -> Moments:
    """The moments of a step.

    Args:
        low: Scalar, the least value.
        sums: (3,) number of values, sum of what they exceed `low` by, and of its square.
    """
    count, total, squares = sums.unbind()
    above = total / count
    variance = (squares - count * above**2) / (count - 1).clamp(min=1)
    return Moments(count, low, above, variance.clamp(min=0).sqrt())


def power_sums(above: Tensor) -> Tensor:
    """(3,) what `moments_of` takes, of (B,) values less the least of the step."""
    return torch.stack([torch.ones_like(above), above, above.square()]).sum(dim=1)


def moments(values: Tensor) -> Moments:
    """The moments of (B,) values that are all there are of a step, B >= 1."""
    values = values.double()
    return moments_of(values.min(), power_sums(values - values.min()))


def centred(values: Tensor, step: Moments) -> Tensor:
    """Values less their mean over the step: exactly 0 where all are equal.

    Args:
        values: (B,) values.
        step: Of all values of the step.

    Returns:
        (B,) centred values.
    """
    return values - step.low - step.above


def scaled(values: Tensor, step: Moments) -> Tensor:
    """Centred values in units of their spread: (x - mean) / (std + 1e-4) over the step, as GRPO has it in a group.

    REINFORCE++ normalises advantages over the batch likewise (Hu 2025, arXiv:2501.03262). Arguments and result as for
    `centred`.
    """
    return centred(values, step) / (step.std + 1e-4)


def batch_leave_one_out_advantages(rewards: Tensor, step: Moments) -> Tensor:
    """How much better a response is than all others of the step: A = r - mean of the n - 1 others = n/(n - 1) (r - mean).

    Args:
        rewards: (B,) rewards.
        step: Of all rewards of the step.

    Returns:
        (B,) advantages; 0 where a response is the only one.
    """
    return centred(rewards, step) * (step.count / (step.count - 1).clamp(min=1))


def group_advantages(rewards: Tensor, group_size: int, scale: Literal["group", "none"] = "group") -> Tensor:
    """How much better a response is than the others to its prompt: A = r - mean, over the group's spread where asked.

    group: A = (r - mean) / (std + 1e-4), std over G - 1 (GRPO, Shao et al. 2024, arXiv:2402.03300). none: A = r - mean
    (Dr.GRPO, Liu et al. 2025, arXiv:2503.20783). A group whose rewards are all equal has advantage exactly 0.

    Args:
        rewards: (B,) rewards, the G responses to a prompt side by side.
        group_size: G >= 2.
        scale: What the centred reward is divided by.

    Returns:
        (B,) advantages.

    Raises:
        ValueError: For an unknown scale, G < 2, or B that is no multiple of G.
    """
    groups = _grouped(rewards, group_size)
    centred = torch.where(_all_equal(groups), 0.0, groups - groups.mean(1, keepdim=True))
    if scale == "group":
        centred = centred / (groups.std(1, keepdim=True) + 1e-4)
    elif scale != "none":
        raise ValueError(f"unknown scale '{scale}': use group or none")
    return centred.flatten()


def leave_one_out_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """How much better a response is than the mean of the others: A = r - mean of the G - 1 others = G/(G - 1) (r - mean).

    RLOO, Ahmadian et al. 2024, arXiv:2402.14740. Arguments, result and errors as for `group_advantages`.
    """
    return group_advantages(rewards, group_size, "none") * group_size / (group_size - 1)


def overlong_penalty(lengths: Tensor, max_length: int, buffer: int) -> Tensor:
    """What DAPO adds to the reward of a long response (soft overlong punishment, Yu et al. 2025, arXiv:2503.14476, eq. 13).

    0 up to max_length - buffer tokens, then falling linearly to -1 at max_length.

    Args:
        lengths: (B,) response tokens.
        max_length: Limit of response tokens.
        buffer: Tokens before the limit over which the penalty grows, in 1 .. max_length.

    Returns:
        (B,) in [-1, 0].
    """
    if not 0 < buffer <= max_length:
        raise ValueError(f"buffer must lie in 1 .. max_length = {max_length}, not {buffer}")
    return ((max_length - buffer - lengths) / buffer).clamp(-1, 0)


def has_variance(rewards: Tensor, group_size: int) -> Tensor:
    """Which groups have rewards that differ: (B / G,) bool. The others have advantage 0 and no gradient (DAPO)."""
    return ~_all_equal(_grouped(rewards, group_size)).squeeze(1)


def _grouped(rewards: Tensor, group_size: int) -> Tensor:
    if group_size < 2 or len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards are not groups of {group_size}: G must be at least 2 and divide them")
    return rewards.view(-1, group_size)


def _all_equal(groups: Tensor) -> Tensor:
    """(B / G, 1) bool; by equality, since the spread of equal rewards is not 0 after rounding."""
    return (groups == groups[:, :1]).all(1, keepdim=True)
