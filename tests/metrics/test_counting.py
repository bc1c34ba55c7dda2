"""Counts, and answers that there is nothing, by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.metrics import CountAccuracy, TargetAccuracy


def test_counts_by_hand() -> None:
    metric = CountAccuracy()
    metric.update([3, 0, 4], [3, 0, 2])
    metric.update(torch.tensor([7]), torch.tensor([8]))
    metric.update([None, None], [5, 0])  # no answer: 0 objects, never right
    values = metric.compute()
    assert values["count_accuracy"].item() == 2 / 6
    assert values["count_error"].item() == (0 + 0 + 2 + 1 + 5 + 0) / 6


def test_targets_by_hand() -> None:
    metric = TargetAccuracy()
    metric.update([0, 1, None], [0, 0, 0])
    assert metric.compute()["target_accuracy"].isnan()  # no sample with targets yet
    metric.update([2, 0, 5, None], [1, 1, 9, 1])
    values = metric.compute()
    assert values["no_target_accuracy"].item() == 1 / 3
    assert values["target_accuracy"].item() == 2 / 4


@pytest.mark.parametrize("metric", [CountAccuracy(), TargetAccuracy()])
def test_what_is_no_count_is_named_and_nothing_is_added(metric) -> None:
    for preds, target, message in [
        ([1, -1], [1, 1], r"preds\[1\] is -1; counts are whole numbers"),
        ([1], [0.5], r"target\[0\] is 0.5"),
        ([1], [None], r"target\[0\] is None"),
        ([1, 2], [1], "2 preds and 1 targets"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.update(preds, target)
    assert metric.total == 0
