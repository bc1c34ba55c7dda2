"""Types of responses against hand arithmetic."""

import math

import numpy as np
import pytest
import torch

from lightning_sal.evaluation.response_types import (
    TYPES,
    advantages_by_algorithm,
    classify,
    figure,
    mean_by_type,
    shares,
    threshold,
)

REWARDS = torch.tensor([0.9, 0.2, 0.9, 0.2, 0.5])
CONFIDENCE = torch.tensor([0.3, 0.8, 0.8, 0.3, 0.6])


def names(types):
    return [TYPES[place] for place in types.tolist()]


def test_what_reaches_both_thresholds_is_high_in_both():
    types = classify(REWARDS, CONFIDENCE, 0.5, 0.7)
    assert names(types) == ["HrLc", "LrHc", "HrHc", "LrLc", "HrLc"]
    assert shares(types) == {"HrLc": 0.4, "LrHc": 0.2, "HrHc": 0.2, "LrLc": 0.2}


def test_a_decimal_threshold_is_reached_by_the_same_decimal_whatever_its_precision():
    for precision in (torch.float32, torch.float64):
        values = torch.tensor([0.9], dtype=precision)
        assert names(classify(values, values, 0.9, 0.9)) == ["HrHc"]
        assert names(classify(values.float().to(precision), values, 0.9, 0.9)) == ["HrHc"]


@pytest.mark.parametrize("values", [[0, 0, 0, 1], [0, 1, 1, 1], [0.5, 0.5, 0.55], [-1, -0.5]])
def test_the_mean_leaves_responses_on_both_sides(values):
    values = torch.tensor(values)
    high = values >= threshold(values)
    assert high.any()
    assert not high.all()


@pytest.mark.parametrize("number", [3, 7, 1000])
def test_equal_values_are_all_high(number):
    values = torch.full((number,), 0.1, dtype=torch.float64)
    assert names(classify(values, values, threshold(values), threshold(values))) == ["HrHc"] * number


def test_a_given_threshold_is_taken():
    assert threshold(torch.tensor([0.0, 1.0]), 0.0) == 0


def test_advantages_by_hand():
    """Two prompts of two responses and one of a single one, in any order.

    Prompt a: rewards 1, 0: mean 0.5, std sqrt(0.5). Prompt b: equal rewards. RLOO: reward minus that of the other.
    """
    rewards = torch.tensor([1.0, 0.25, 0.7, 0.0, 0.25])
    confidence = torch.tensor([0.5, 0.5, 0.9, 0.5, 0.75])
    found = advantages_by_algorithm(rewards, confidence, ["a", "b", "c", "a", "b"], [0] * 5)
    found = {name: values for name, values in found.items() if not name.startswith(("CGPO ", "Batch"))}
    nan, standard = math.nan, 0.5 / (math.sqrt(0.5) + 1e-4)
    expected = {
        "CGPO": [0.5, -0.25, -0.2, -0.5, -0.5],
        "GRPO": [standard, 0, nan, -standard, 0],
        "Dr.GRPO": [0.5, 0, nan, -0.5, 0],
        "RLOO": [1, 0, nan, -1, 0],
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values), equal_nan=True)


def test_groups_of_any_size_are_compared_within_themselves():
    """Three responses 0, 0.3, 0.9 and two 0.5, 0.7: each minus the mean of the others."""
    rewards = torch.tensor([0.0, 0.5, 0.3, 0.7, 0.9])
    found = advantages_by_algorithm(rewards, torch.zeros(5), [0, 1, 0, 1, 0], [0] * 5)["RLOO"]
    torch.testing.assert_close(found, torch.tensor([-0.6, -0.2, -0.15, 0.2, 0.75]))


def test_variants_of_cgpo_by_hand():
    """Step x: r - c = 0.3, -0.3, 0.1; step y: one response. The line through all (c, r) is NumPy's."""
    rewards, confidence = torch.tensor([1.0, 0.2, 0.1, 0.7]), torch.tensor([0.7, 0.5, 0.4, 0.6])
    given = {"answer": torch.tensor([0.4, 0.4, math.nan, 0.4]), "geometric": torch.tensor([0.1, 0.2, 0.3, 0.4])}
    found = advantages_by_algorithm(rewards, confidence, range(4), ["x", "y", "x", "x"], given)
    mean = (0.3 - 0.3 + 0.1) / 3
    std = math.sqrt(((0.3 - mean) ** 2 + (-0.3 - mean) ** 2 + (0.1 - mean) ** 2) / 2) + 1e-4
    line = np.polyfit(confidence.numpy(), rewards.numpy(), 1)
    assert line[0] > 1
    expected = {
        "CGPO centred": [0.3 - mean, 0, -0.3 - mean, 0.1 - mean],
        "CGPO scaled": [(0.3 - mean) / std, 0, (-0.3 - mean) / std, (0.1 - mean) / std],
        "CGPO calibrated": (rewards.numpy() - np.polyval(line, confidence.numpy()).clip(0, 1)).tolist(),
        "CGPO answer": [0.6, -0.2, math.nan, 0.3],
        "CGPO geometric": [0.9, 0, -0.2, 0.3],
        "BatchLOO": [1 - 0.4, 0, 0.1 - 0.85, 0.7 - 0.55],
    }
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values), equal_nan=True)


def test_means_by_type_leave_out_what_is_unknown():
    types = classify(REWARDS, CONFIDENCE, 0.5, 0.7)
    means = mean_by_type(torch.tensor([1.0, 2.0, 3.0, math.nan, 4.0]), types)
    assert (means["HrLc"], means["LrHc"], means["HrHc"]) == (2.5, 2.0, 3.0)
    assert math.isnan(means["LrLc"])


def test_values_that_have_no_type_are_refused():
    with pytest.raises(ValueError, match=r"reward\[1\] is nan"):
        classify(torch.tensor([0.5, math.nan]), torch.ones(2), 0.5, 0.5)
    with pytest.raises(ValueError, match="both have the shape"):
        classify(torch.ones(2), torch.ones(3), 0.5, 0.5)


def test_the_figure_says_the_shares_and_draws_the_means():
    advantages = {"CGPO": REWARDS - CONFIDENCE, "GRPO": torch.full((5,), math.nan)}
    drawn = figure(REWARDS, CONFIDENCE, advantages, 0.5, 0.7)
    upper, lower = drawn.axes
    assert sorted(text.get_text() for text in upper.texts) == [
        "HrHc 20.0 %",
        "HrLc 40.0 %",
        "LrHc 20.0 %",
        "LrLc 20.0 %",
    ]
    points = torch.cat([torch.tensor(part.get_offsets()) for part in upper.collections])
    assert sorted(points.tolist()) == sorted(torch.stack([CONFIDENCE, REWARDS], 1).tolist())
    assert [text.get_text() for text in lower.get_yticklabels()] == ["CGPO"]  # of the other nothing is known
    assert [text.get_text() for text in lower.get_xticklabels()] == list(TYPES)
    written = {TYPES[int(text.get_position()[0])]: text.get_text() for text in lower.texts}
    assert written == {"HrLc": "+0.250", "LrHc": "-0.600", "HrHc": "+0.100", "LrLc": "-0.100"}
    (colours,) = (image.get_array().flatten().tolist() for image in lower.images)
    assert colours == pytest.approx([-0.1 / 0.6, -1, 0.25 / 0.6, 0.1 / 0.6])
