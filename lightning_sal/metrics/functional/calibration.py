"""How confidence and reward agree: calibration error and the four response types, from counts of fixed size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ReliabilityCurve(NamedTuple):
    """Per confidence bin, lowest first, float64; NaN in a bin without response.

    Args:
        confidence: (N,) mean confidence.
        reward: (N,) mean reward.
        count: (N,) responses.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import ConfidenceCalibration
        >>> metric = ConfidenceCalibration(bins=2)
        >>> metric.update(torch.tensor([0.5, 0.75]), torch.tensor([1.0, 0.5]))
        >>> metric.curve().reward
        tensor([   nan, 0.7500], dtype=torch.float64)
    """

    confidence: Tensor
    reward: Tensor
    count: Tensor


def expected_calibration_error(curve: ReliabilityCurve) -> Tensor:
    r"""The mean distance of confidence and reward over bins, weighted by responses.

    .. math:: \text{ECE} = \sum_n \frac{|B_n|}{\sum_m |B_m|} \left| \bar c_n - \bar r_n \right|

    Naeini et al. 2015 (Bayesian binning), with reward in place of accuracy. NaN without responses.

    Example:
        >>> import torch
        >>> curve = ReliabilityCurve(*torch.tensor([[0.3, 0.9], [0.5, 0.8], [1, 3]], dtype=torch.float64))
        >>> expected_calibration_error(curve)
        tensor(0.1250, dtype=torch.float64)
    """
    gaps = (curve.confidence - curve.reward).abs() * curve.count
    return gaps.nansum() / curve.count.sum()


def response_types(joint: Tensor, quantile: float) -> Tensor:
    """Shares of responses whose confidence and reward are each among the highest or the lowest.

    Args:
        joint: (N, N) responses by confidence bin (rows) and reward bin (columns), lowest first.
        quantile: Share of responses that is high and share that is low, in (0, 0.5]. The bin in which the quantile lies
            counts with its side, so that where many are alike a side can hold more; a bin never counts with both.

    Returns:
        (2, 2) shares in [0, 1]: rows are low and high confidence, columns low and high reward. NaN without responses.

    Example:
        >>> import torch
        >>> response_types(torch.eye(5), 0.2)
        tensor([[0.2000, 0.0000],
                [0.0000, 0.2000]])
    """
    total = joint.sum()
    confidence, reward = (_sides(joint.sum(dim), quantile).to(joint.dtype) for dim in (1, 0))
    return confidence @ joint @ reward.T / total


def _sides(counts: Tensor, quantile: float) -> Tensor:
    """(2, N) bool: bins up to the low quantile, and bins from the high one on, without those that are low."""
    total = counts.sum()
    # Responses in lower bins, without `cumsum`, in which CUDA adds floats in no fixed order
    below = counts.expand(len(counts), -1).tril(-1).sum(1)
    above = total - below - counts
    low = below < quantile * total
    high = (above < quantile * total) & ~low
    return torch.stack([low, high])
