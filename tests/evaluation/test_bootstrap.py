"""Bootstrap intervals of means, beside theory and beside scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lightning_sal.evaluation.bootstrap import bootstrap, paired_bootstrap


def test_bootstrap_by_the_normal_interval_of_a_mean() -> None:
    draw = np.random.default_rng(0)
    ours = draw.normal(0.6, 0.1, 200)
    theirs = ours - draw.normal(0.01, 0.05, 200)
    mean, low, high = paired_bootstrap(ours.tolist(), theirs.tolist())
    error = (ours - theirs).std() / 200**0.5
    assert mean == pytest.approx((ours - theirs).mean(), abs=1e-12)
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)


def test_a_single_image_has_no_interval() -> None:
    assert paired_bootstrap([0.5], [0.25]) == (0.25, 0.25, 0.25)


def test_columns_have_the_intervals_of_scipy() -> None:
    """Percentiles of 10,000 resampled means: two draws of these differ by some hundredths of a standard error."""
    values = np.random.default_rng(1).beta(5, 2, (300, 2)) * [1, 0.5]
    for column, (mean, low, high) in zip(values.T, bootstrap(values), strict=True):
        theirs = stats.bootstrap((column,), np.mean, n_resamples=10_000, method="percentile", rng=2).confidence_interval
        error = column.std() / 300**0.5
        assert mean == pytest.approx(column.mean(), abs=1e-12)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * error + 1e-12)


def test_a_column_has_the_same_interval_beside_any_other() -> None:
    values = np.random.default_rng(2).random((50, 2))
    assert bootstrap(values)[1] == pytest.approx(bootstrap(values[:, 1:])[0], abs=1e-12)
