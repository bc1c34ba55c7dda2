"""The running fit of rewards to confidence against NumPy's."""

import numpy as np
import pytest
import torch

from lightning_sal.objectives import calibrated, calibration_line, fit_sums


def drawn(count, slope, seed):
    generator = torch.Generator().manual_seed(seed)
    confidence, noise = torch.rand(2, count, generator=generator, dtype=torch.float64)
    return confidence, 0.3 + slope * confidence + 0.1 * noise


def line(sums):
    return [float(number) for number in calibration_line(sums)]


def test_forgotten_sums_fit_as_numpy_does_with_weights():
    """Three steps, each with 0.9 of the weight of the next; `polyfit` squares its weights."""
    steps = [drawn(count, slope, count) for count, slope in [(40, 0.2), (7, 0.6), (25, 0.5)]]
    sums = torch.zeros(5, dtype=torch.float64)
    for confidence, rewards in steps:
        sums = 0.9 * sums + fit_sums(confidence, rewards)
    c, r = (torch.cat(column).numpy() for column in zip(*steps, strict=True))
    weights = np.repeat([0.81, 0.9, 1], [40, 7, 25])
    slope, intercept = np.polyfit(c, r, 1, w=np.sqrt(weights))
    assert line(sums) == pytest.approx([intercept, slope], rel=1e-10)
    torch.testing.assert_close(calibrated(torch.tensor([0.4]), sums), torch.tensor([intercept + 0.4 * slope]).float())


def test_the_parts_of_a_step_add_up():
    confidence, rewards = drawn(11, 0.4, 0)
    parts = fit_sums(confidence[:4], rewards[:4]) + fit_sums(confidence[4:], rewards[4:])
    torch.testing.assert_close(parts, fit_sums(confidence, rewards), rtol=1e-14, atol=0)


def test_a_confidence_that_promises_less_the_surer_it_is_promises_the_mean():
    confidence, rewards = drawn(30, -0.5, 1)
    assert line(fit_sums(confidence, rewards)) == pytest.approx([float(rewards.mean()), 0.0])


@pytest.mark.parametrize("count", [1, 7])
def test_equal_confidences_promise_the_mean(count):
    confidence, rewards = torch.full((count,), 0.1), torch.linspace(0.2, 0.8, count)
    assert line(fit_sums(confidence, rewards)) == pytest.approx([float(rewards.mean()), 0.0])


def test_confidence_is_itself_before_there_is_anything_to_fit():
    confidence = torch.rand(9, generator=torch.Generator().manual_seed(0))
    assert calibrated(confidence, torch.zeros(5)).equal(confidence)


def test_what_is_promised_is_a_reward():
    """Through (0.4, 0) and (0.6, 1): r = 5 c - 2."""
    sums = fit_sums(torch.tensor([0.4, 0.6]), torch.tensor([0.0, 1.0]))
    found = calibrated(torch.tensor([0.1, 0.5, 0.9]), sums)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 1.0]))
