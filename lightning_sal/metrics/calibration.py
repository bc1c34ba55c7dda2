"""Calibration of confidence as a torchmetrics metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics.base import placed
from lightning_sal.metrics.functional.calibration import ReliabilityCurve, expected_calibration_error, response_types

_JOINT_BINS = 500  # 2 MB, and quantiles to 0.002


class ConfidenceCalibration(Metric):
    """How a policy's confidence agrees with the reward of its responses, over all responses of all ranks.

    `compute` gives float64 scalars: `ece`, the expected calibration error over `bins` equal bins of confidence, and the
    shares of the four response types `high_reward_high_confidence`, `high_reward_low_confidence`,
    `low_reward_high_confidence` and `low_reward_low_confidence`, high and low being the upper and the lower `quantile`
    of all responses, to 0.002. `curve` gives the reliability curve, and `plot` draws it. NaN if no rank has seen a
    response.

    Args:
        bins: Confidence bins of the curve, > 0.
        quantile: Share of responses that counts as high, and share that counts as low, in (0, 0.5].
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import ConfidenceCalibration
        >>> metric = ConfidenceCalibration()
        >>> metric.update(torch.tensor([0.95, 0.95, 0.35, 0.55]), torch.tensor([0.9, 0.4, 0.3, 0.5]))
        >>> round(metric.compute()["ece"].item(), 3)
        0.175
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    confidence_sums: Tensor
    reward_sums: Tensor
    response_counts: Tensor
    joint: Tensor

    def __init__(self, bins: int = 10, quantile: float = 0.2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1 or not 0 < quantile <= 0.5:
            raise ValueError(f"bins must be > 0 and quantile in (0, 0.5], not {bins} and {quantile}")
        self.bins, self.quantile = bins, quantile
        for name in ("confidence_sums", "reward_sums", "response_counts"):
            self.add_state(name, torch.zeros(bins, dtype=torch.float64), dist_reduce_fx="sum")
        joint = torch.zeros(_JOINT_BINS, _JOINT_BINS, dtype=torch.float64)
        self.add_state("joint", joint, dist_reduce_fx="sum")

    def update(self, confidence: Tensor, reward: Tensor) -> None:
        """Add B responses.

        Args:
            confidence: (B,) in [0, 1].
            reward: (B,) in [0, 1].

        Raises:
            ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the response.
        """
        if confidence.shape != reward.shape or confidence.ndim != 1:
            raise ValueError(
                f"confidence {tuple(confidence.shape)} and reward {tuple(reward.shape)} must both have the shape (B,)"
            )
        confidence, reward = placed(self.device, confidence, reward)
        for name, values in {"confidence": confidence, "reward": reward}.items():
            good = (values >= 0) & (values <= 1)
            if not good.all():
                index = int(good.int().argmin())
                raise ValueError(f"{name}[{index}] is {values[index].item():g}; it must lie in [0, 1]")
        confidence, reward = confidence.detach().double(), reward.detach().double()
        bins = _bin(confidence, self.bins)
        self.confidence_sums.index_add_(0, bins, confidence)
        self.reward_sums.index_add_(0, bins, reward)
        self.response_counts.index_add_(0, bins, torch.ones_like(reward))
        cells = _bin(confidence, _JOINT_BINS) * _JOINT_BINS + _bin(reward, _JOINT_BINS)
        self.joint.view(-1).index_add_(0, cells, torch.ones_like(reward))

    def compute(self) -> dict[str, Tensor]:
        """`ece` and the shares of the four response types."""
        (low_low, low_high), (high_low, high_high) = response_types(self.joint, self.quantile)
        return {
            "ece": expected_calibration_error(self.curve()),
            "high_reward_high_confidence": high_high,
            "high_reward_low_confidence": low_high,
            "low_reward_high_confidence": high_low,
            "low_reward_low_confidence": low_low,
        }

    def curve(self) -> ReliabilityCurve:
        """Mean confidence and reward of each bin, over the responses of this rank."""
        count = self.response_counts
        return ReliabilityCurve(self.confidence_sums / count, self.reward_sums / count, count)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw reward over confidence by bin, or values that `compute` gave; returns figure and axes.

        The line goes through mean confidence and mean reward of each bin; a bar reaches from one to the other, red where
        confidence is above reward and green where it is below; at the foot stands the number of responses.
        """
        if val is not None:
            return self._plot(val, ax)
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots(figsize=(5, 5), layout="constrained")[1]
        curve = ReliabilityCurve(*(values.cpu() for values in self.curve()))
        ax.plot([0, 1], [0, 1], color="#707886", linewidth=1, linestyle="--")
        ax.plot(curve.confidence.numpy(), curve.reward.numpy(), color="#0072b2", marker="o")
        for number, (confidence, reward, count) in enumerate(zip(*(part.tolist() for part in curve), strict=True)):
            if count:
                colour, centre = ("#d55e00" if confidence > reward else "#009e73"), (number + 0.5) / self.bins
                ax.bar(centre, confidence - reward, 0.92 / self.bins, bottom=reward, color=colour, alpha=0.3)
                ax.text(centre, 0.01, f"{count:,.0f}", ha="center", va="bottom", fontsize=8, color="#20242c")
        words = f"ECE {expected_calibration_error(curve).item():.3f}, {curve.count.sum().item():,.0f} responses"
        ax.set(xlabel="confidence", ylabel="reward", xlim=(0, 1), ylim=(0, 1), title=words)
        return ax.figure, ax


def _bin(values: Tensor, bins: int) -> Tensor:
    return (values * bins).long().clamp(max=bins - 1)
