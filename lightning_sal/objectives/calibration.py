"""What reward a confidence promises: a line that is fitted to what rewards came with which confidence.

Legend: B responses, c confidence, r reward. A fit is five sums over responses, of 1, c, r, c^2 and c r, so that those of
ranks and of steps are added.
"""

from __future__ import annotations

import torch
from torch import Tensor

SUMS = 5


def fit_sums(confidence: Tensor, rewards: Tensor) -> Tensor:
    """What responses add to a fit.

    Args:
        confidence: (B,) in [0, 1].
        rewards: (B,) rewards.

    Returns:
        (5,) float64 sums.
    """
    c, r = confidence.double(), rewards.double()
    return torch.stack([torch.ones_like(c), c, r, c * c, c * r]).sum(dim=1)


def calibration_line(sums: Tensor) -> tuple[Tensor, Tensor]:
    """The line r = a + b c of least squares with b >= 0: b = max(0, cov(c, r) / var(c)), a = mean(r) - b mean(c).

    A slope below 0 would have the policy learn most from what it is surest of; with b = 0 the line is the mean reward.
    Where confidences do not differ, b is 0 too. Before there is anything to fit, the line is r = c.

    Args:
        sums: (5,) as `fit_sums` gives them, weighted or not.

    Returns:
        a and b, scalars in float64.
    """
    n, c, r, cc, cr = sums.double().unbind()
    known = n > 0
    n = torch.where(known, n, 1.0)
    c, r = c / n, r / n
    spread = cc / n - c**2
    slope = torch.where(spread > 1e-12, (cr / n - c * r) / spread, 0.0).clamp(min=0)
    return torch.where(known, r - slope * c, 0.0), torch.where(known, slope, 1.0)


def calibrated(confidence: Tensor, sums: Tensor) -> Tensor:
    """The reward that a confidence promises: a + b c, held within [0, 1]; see `calibration_line`.

    Args:
        confidence: (B,) in [0, 1].
        sums: (5,) as `fit_sums` gives them, weighted or not.

    Returns:
        (B,) in [0, 1].
    """
    intercept, slope = calibration_line(sums)
    return (intercept + slope * confidence.detach().double()).clamp(0, 1).to(confidence.dtype)
