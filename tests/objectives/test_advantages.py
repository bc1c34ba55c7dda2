"""Advantages of groups against golden values, hand arithmetic and identities."""

import pytest
import torch

from lightning_sal.objectives import (
    batch_leave_one_out_advantages,
    centred,
    geometric_confidence,
    group_advantages,
    has_variance,
    leave_one_out_advantages,
    moments,
    moments_of,
    overlong_penalty,
    power_sums,
    scaled,
)

REWARDS = torch.tensor([1, 0.25, 0.8, 0.9], dtype=torch.float64)
# TRL 1.16.0, float64
GROUP = [0.7069734729900489, -0.7069734729900489, -0.7061081934029355, 0.706108193402934]


def test_golden_values():
    assert group_advantages(REWARDS, 2).tolist() == pytest.approx(GROUP, abs=1e-12)
    assert group_advantages(REWARDS, 2, "none").tolist() == pytest.approx([0.375, -0.375, -0.05, 0.05], abs=1e-12)


@pytest.mark.parametrize("scale", ["group", "none"])
def test_equal_rewards_have_advantage_exactly_0(scale):
    rewards = torch.full((14,), 0.1)  # whose mean over 7 is not 0.1 in float32
    assert group_advantages(rewards, 7, scale).tolist() == [0.0] * 14
    assert leave_one_out_advantages(rewards, 7).tolist() == [0.0] * 14


def test_leave_one_out_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.2, 0.2, 0.8])
    expected = [1 - 0.25, 0 - 0.75, 0.5 - 0.5, 0.2 - 0.5, 0.2 - 0.5, 0.8 - 0.2]
    assert leave_one_out_advantages(rewards, 3).tolist() == pytest.approx(expected, abs=1e-6)


def test_advantages_of_a_group_sum_to_0_and_know_nothing_of_other_groups():
    rewards = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    advantages = group_advantages(rewards, 4)
    assert advantages.view(3, 4).sum(1).abs().max() < 1e-12
    assert torch.equal(advantages[4:8], group_advantages(rewards[4:8], 4))


def test_overlong_penalty_by_hand():
    lengths = torch.tensor([10, 80, 81, 90, 100, 120])
    assert overlong_penalty(lengths, 100, 20).tolist() == pytest.approx([0, 0, -0.05, -0.5, -1, -1])
    with pytest.raises(ValueError, match="buffer"):
        overlong_penalty(lengths, 100, 0)


def test_groups_that_tell_nothing_are_found():
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.1 + 1e-7, 0.1])
    assert has_variance(rewards, 3).tolist() == [False, True]


@pytest.mark.parametrize(
    ("size", "scale", "message"), [(1, "group", "at least 2"), (3, "group", "divide"), (2, "batch", "scale")]
)
def test_what_is_no_group_is_refused(size, scale, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(REWARDS, size, scale)


def test_geometric_confidence_by_hand():
    """sqrt(0.5 x 0.08) = 0.2, of the second row the one token alone, and nothing of the third."""
    logp = torch.tensor([[0.5, 0.08, 0.3], [0.7, 0.1, 0.1], [0.9, 0.9, 0.9]]).log().requires_grad_()
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    found = geometric_confidence(logp, mask)
    assert found.tolist() == pytest.approx([0.2, 0.7, 0])
    assert not found.requires_grad


def test_a_step_of_two_parts_is_normalised_as_one():
    """Mean 0.7375; sums of squared deviations over 3 are the variance."""
    low = REWARDS.min()
    step = moments_of(low, power_sums(REWARDS[:1] - low) + power_sums(REWARDS[1:] - low))
    expected = [0.2625, -0.4875, 0.0625, 0.1625]
    std = (sum(each**2 for each in expected) / 3) ** 0.5
    assert centred(REWARDS, step).tolist() == pytest.approx(expected, abs=1e-12)
    assert scaled(REWARDS, step).tolist() == pytest.approx([each / (std + 1e-4) for each in expected], abs=1e-12)
    # TRL 1.16.0, `scale_rewards="batch"`, which centres within groups: the same divisor
    assert 0.375 / (float(step.std) + 1e-4) == pytest.approx(1.1187367932947294, abs=1e-12)


def test_leave_one_out_over_a_batch_by_hand():
    found = batch_leave_one_out_advantages(REWARDS, moments(REWARDS))
    assert found.tolist() == pytest.approx([1 - 0.65, 0.25 - 0.9, 0.8 - 2.15 / 3, 0.9 - 2.05 / 3], abs=1e-12)


@pytest.mark.parametrize("normalised", [centred, scaled, batch_leave_one_out_advantages])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_values_of_a_step_are_exactly_0(normalised, count, dtype):
    values = torch.full((count,), 0.1, dtype=dtype)
    assert normalised(values, moments(values)).tolist() == [0.0] * count
