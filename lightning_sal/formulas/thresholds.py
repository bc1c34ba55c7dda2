"""E, F and their like over thresholds, from hits and false alarms.

Legend: B samples, T thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import array_namespace

from lightning_sal.formulas.arrays import EPS, Array

BETA2 = 0.3


class ThresholdCounts(NamedTuple):
    """Pixels counted at each threshold, float64.

    Args:
        hits: (B, T) pixels of the object whose value reaches the threshold.
        alarms: (B, T) pixels beside the object whose value reaches it.
        objects: (B,) pixels of the object.
        pixels: (B,) pixels of the map.
    """

    hits: Array
    alarms: Array
    objects: Array
    pixels: Array


class FMeasures(NamedTuple):
    """Values in [0, 1] at each threshold, (B, T) each: `precision`, the share of the predicted pixels that are the object's;
    `recall`, the share of the object's pixels that are predicted; and `f_measure`."""

    precision: Array
    recall: Array
    f_measure: Array


def f_measures(counts: ThresholdCounts, beta2: float = BETA2) -> FMeasures:
    """Precision, recall and F at each threshold."""
    xp = array_namespace(counts.hits)
    precision = counts.hits / xp.clip(counts.hits + counts.alarms, min=1)
    objects = counts.objects[:, None]  # below 1 where greys count as shares of an object
    recall = counts.hits / xp.where(objects > 0, objects, xp.ones_like(objects))
    return FMeasures(precision, recall, f_of(precision, recall, beta2))


def f_of(precision: Array, recall: Array, beta2: float = BETA2) -> Array:
    """The F-measure of precision and recall, 0 where both are 0."""
    xp = array_namespace(precision)
    below = beta2 * precision + recall
    return (1 + beta2) * precision * recall / xp.where(below > 0, below, xp.ones_like(below))


def enhanced_alignment(counts: ThresholdCounts) -> Array:
    """The measure at each threshold, (B, T), from four kinds of pixels: each kind has one alignment value."""
    xp = array_namespace(counts.hits)
    hits, alarms = counts.hits, counts.alarms
    objects, pixels = counts.objects[:, None], counts.pixels[:, None]
    predicted = hits + alarms
    mean_x, mean_y = predicted / pixels, objects / pixels
    total = (
        hits * _alignment(1 - mean_x, 1 - mean_y)
        + alarms * _alignment(1 - mean_x, -mean_y)
        + (objects - hits) * _alignment(-mean_x, 1 - mean_y)
        + (pixels - objects - alarms) * _alignment(-mean_x, -mean_y)
    )
    total = xp.where(objects == 0, pixels - predicted, xp.where(objects == pixels, predicted, total))
    return total / xp.clip(pixels - 1, min=1)


def soft_alignment(predicted: Array, sizes: Array, truth: Array) -> Array:
    """The same where the ground truth has K levels, (B, T); a truth without object is no exception here.

    Args:
        predicted: (B, K, T) pixels whose value reaches each threshold, by level of the truth.
        sizes: (B, K) pixels.
        truth: (K,) the values of these levels in [0, 1].
    """
    xp = array_namespace(predicted)
    pixels = xp.sum(sizes, axis=1)[:, None]
    mean_x = (xp.sum(predicted, axis=1) / pixels)[:, None]
    y = (truth[None] - xp.sum(sizes * truth, axis=1)[:, None] / pixels)[:, :, None]
    total = predicted * _alignment(1 - mean_x, y) + (sizes[:, :, None] - predicted) * _alignment(-mean_x, y)
    return xp.sum(total, axis=1) / xp.clip(pixels - 1, min=1)


def _alignment(x: Array, y: Array) -> Array:
    """The enhanced alignment value (1 + xi)^2 / 4 of pixels whose deviations from the means are x and y."""
    return (2 * x * y / (x**2 + y**2 + EPS) + 1) ** 2 / 4
