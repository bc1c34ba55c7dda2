"""Calibration by hand arithmetic and against torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import BinaryCalibrationError

from lightning_sal.metrics import ConfidenceCalibration


def test_equals_torchmetrics_where_rewards_are_right_or_wrong() -> None:
    draw = torch.Generator().manual_seed(0)
    confidence, right = torch.rand(500, generator=draw), torch.rand(500, generator=draw) > 0.4
    ours, theirs = ConfidenceCalibration(bins=15), BinaryCalibrationError(n_bins=15, norm="l1")
    ours.update(confidence[:200], right[:200].float())
    ours.update(confidence[200:], right[200:].float())
    theirs.update(confidence, right.int())
    assert ours.compute()["ece"].item() == pytest.approx(theirs.compute().item(), abs=1e-6)


def test_response_types_are_the_corners_of_the_quantiles() -> None:
    # 100 responses: confidence 0.005, 0.015, ...; rewards in this order, but the 5 most confident get the 5 lowest.
    confidence = (torch.arange(100) + 0.5) / 100
    reward = confidence.roll(-5)
    metric = ConfidenceCalibration(quantile=0.2)
    metric.update(confidence, reward)
    values = {name: round(value.item(), 6) for name, value in metric.compute().items() if name != "ece"}
    assert values == {
        "high_reward_high_confidence": 0.15,
        "high_reward_low_confidence": 0.0,
        "low_reward_high_confidence": 0.05,
        "low_reward_low_confidence": 0.15,
    }


def test_responses_that_are_all_alike_are_never_both_high_and_low() -> None:
    metric = ConfidenceCalibration()
    metric.update(torch.full((10,), 0.9), torch.full((10,), 0.9))
    values = metric.compute()
    assert values["low_reward_low_confidence"] == 1
    assert values["high_reward_high_confidence"] == 0
    assert values["ece"].item() == pytest.approx(0, abs=1e-7)


def test_picture_shows_the_curve() -> None:
    metric = ConfidenceCalibration(bins=2)
    metric.update(torch.tensor([0.2, 0.4, 0.8]), torch.tensor([0.1, 0.2, 0.6]))
    figure, axis = metric.plot()
    assert axis.lines[1].get_xydata().ravel().tolist() == pytest.approx([0.3, 0.15, 0.8, 0.6])
    figure.clear()


@pytest.mark.parametrize(
    ("confidence", "reward", "message"),
    [
        ([0.5, 1.5], [0, 0], r"confidence\[1\] is 1.5"),
        ([0.5, 0.5], [0, float("nan")], r"reward\[1\] is nan"),
        ([0.5], [0.5, 0.5], r"shape \(B,\)"),
    ],
)
def test_bad_values_are_refused(confidence: list[float], reward: list[float], message: str) -> None:
    metric = ConfidenceCalibration()
    with pytest.raises(ValueError, match=message):
        metric.update(torch.tensor(confidence), torch.tensor(reward))
    assert metric.response_counts.sum() == 0
