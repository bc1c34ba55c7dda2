"""The structure-measure from moments.

Legend: B samples; x the map; fg the object, bg the rest of the image; a quadrant is one of the 2 x 2 parts into which the
centroid of the object cuts the image.
"""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import array_namespace

from lightning_sal.formulas.arrays import EPS, Array


class Moments(NamedTuple):
    """Number of pixels, mean, and sum of squared deviations of x, over fg and bg of each quadrant, each (B, 2, 2, 2); or
    over fg and bg, each (B, 2)."""

    count: Array
    mean: Array
    m2: Array


def structure_of(moments: Moments) -> Array:
    """The structure-measure (B,) from moments (B, 2, 2, 2); see `lightning_sal.metrics.functional.structure_measure`."""
    xp = array_namespace(moments.count)
    whole = pooled(moments)
    ones = xp.stack([whole.mean[:, 0], 1 - whole.mean[:, 1]], axis=1)  # (B, 2): both sides seen as what should be 1
    sigma = xp.sqrt(whole.m2 / xp.clip(whole.count - 1, min=1))
    share = whole.count / xp.sum(whole.count, axis=1, keepdims=True)
    objects = share * (2 * ones / (ones**2 + 1 + sigma + EPS))
    scores = xp.clip(0.5 * xp.sum(objects, axis=1) + 0.5 * _regions(moments), min=0)
    missing = whole.count == 0
    return xp.where(missing[:, 0], ones[:, 1], xp.where(missing[:, 1], ones[:, 0], scores))


def pooled(moments: Moments) -> Moments:
    """The moments (B, 2) over all four quadrants together."""
    xp = array_namespace(moments.count)
    count = xp.sum(moments.count, axis=(2, 3))
    mean = xp.sum(moments.count * moments.mean, axis=(2, 3)) / xp.clip(count, min=1)
    spread = moments.count * (moments.mean - mean[:, :, None, None]) ** 2
    return Moments(count, mean, xp.sum(moments.m2 + spread, axis=(2, 3)))


def _regions(moments: Moments) -> Array:
    """S_r (B,): the similarity of the quadrants, each weighted by its share of the pixels."""
    xp = array_namespace(moments.count)
    fg, bg = moments.count[:, 0], moments.count[:, 1]  # (B, 2, 2)
    count = fg + bg
    size, degrees = xp.clip(count, min=1), xp.clip(count - 1, min=1)
    x, y = xp.sum(moments.count * moments.mean, axis=1) / size, fg / size
    step = moments.mean[:, 0] - moments.mean[:, 1]
    var_y = fg * bg / size / degrees  # exactly 0, and so the covariance, where the quadrant has only fg or only bg
    var_x = xp.sum(moments.m2, axis=1) / degrees + var_y * step**2
    numerator = 4 * x * y * var_y * step
    denominator = (x**2 + y**2) * (var_x + var_y)
    flat = xp.where(denominator == 0, xp.ones_like(x), xp.zeros_like(x))
    similarity = xp.where(numerator != 0, numerator / (denominator + EPS), flat)
    return xp.sum(similarity * count, axis=(1, 2)) / xp.sum(count, axis=(1, 2))
