"""Intervals of means by the bootstrap over images: Efron and Tibshirani 1993 (An introduction to the bootstrap)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COUNTS_AT_ONCE = 1 << 22  # of resampled images held in memory


def paired_bootstrap(
    ours: Sequence[float], theirs: Sequence[float], *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of ours - theirs over the same images, and the percentile interval of that mean under resampled images.

    Args:
        ours: A value an image.
        theirs: Those of the other method, in the same order.
        resamples: Number of resamples, > 0.
        level: Coverage of the interval, in (0, 1).
        seed: Of the resamples.

    Returns:
        The mean, and the lower and the upper end of its interval.
    """
    each = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    ((mean, low, high),) = bootstrap(each[:, None], resamples=resamples, level=level, seed=seed)
    return mean, low, high


def bootstrap(
    values: np.ndarray, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> list[tuple[float, float, float]]:
    """Mean and its percentile interval of each of M columns over the same N images, by the same resamples.

    The mean of a resample is sum_i n_i x_i / N, where n_i says how often image i was drawn: one product of matrices gives
    that of all columns.

    Args:
        values: (N, M) float64.
        resamples: As for `paired_bootstrap`, like the others.
        level: Likewise.
        seed: Likewise.

    Returns:
        For each column what `paired_bootstrap` returns; of a single image its own value thrice.
    """
    images, columns = values.shape
    mean = values.mean(0)
    draw, means = np.random.default_rng(seed), np.empty((resamples, columns))
    at_once = max(1, COUNTS_AT_ONCE // images)
    for first in range(0, resamples, at_once):
        part = means[first : first + at_once]
        drawn = draw.integers(images, size=(len(part), images)) + images * np.arange(len(part))[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        part[:] = mean + counts @ (values - mean) / images  # so that equal values have exactly their mean
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return [tuple(column) for column in np.stack([mean, low, high]).T.tolist()]
