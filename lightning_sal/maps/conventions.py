"""How tools of the field measure saliency maps where they differ, each difference a field of `Convention`.

docs/conventions.md holds what each tool does, and where that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _min_max(values: Array, low: float, high: float) -> Array:
    return (values - low) / (high - low) if high > low else values


def _min_max_or_zero(values: Array, low: float, high: float) -> Array:
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _by_maximum(values: Array, low: float, high: float) -> Array:
    return values / high if high > 0 else values


NORMALIZATIONS: Mapping[str, Callable[[Array, float, float], Array]] = {
    "none": lambda values, low, high: values,
    "min-max": _min_max,  # a constant map stays as it is
    "min-max or 0": _min_max_or_zero,  # a constant map becomes 0
    "max": _by_maximum,
}
"""What becomes of the values of a map, by the least and the largest of them."""


def _of_256(values: Array) -> Array:
    return (values * 255).astype(np.intp) + 1


def _of_255(values: Array) -> Array:
    # torch.linspace in float32, bit by bit: from either end, rounded once. Which levels reach a threshold hangs on it
    step, k = float(np.float32(1) / np.float32(254)), np.arange(255)
    steps = np.where(k < 127, step * k, 1 - step * (254 - k)).astype(np.float32)
    return np.searchsorted(steps, values, side="right")


THRESHOLDS: Mapping[int, Callable[[Array], Array]] = {256: _of_256, 255: _of_255}
"""How many thresholds a value reaches: of k / 255, where floor(255 x) >= k, as 8-bit maps are binarised; or of k / 254."""


F_MAXIMA = ("curve", "precision-recall")
AVERAGES = ("images", "groups")


@dataclass(frozen=True, slots=True)
class Convention:
    """How maps are measured.

    Args:
        name: Of the tool, or `ours`.
        normalize: What becomes of a map before S, E, F and IoU, a name in `NORMALIZATIONS`.
        normalize_mae: The same before MAE.
        truth_above: The last grey of 255 that is background in a ground truth; 25.5 for a cut at 0.1.
        soft_truth: Whether MAE, E and F compare with the greys of the ground truth as they stand; S never does.
        thresholds: How many, a key of `THRESHOLDS`.
        f_max: What F max is the maximum of: `curve`, the F averaged over images, or `precision-recall`, the F of precision
            and recall averaged over images.
        average: `images`, or `groups`: first over the images of a group, then over groups, curves too.
        centroid: How the centroid of the S-measure is rounded, a name in `lightning_sal.maps.counting.CENTROIDS`.
        empty_truth: Whether E of a truth without object, or with nothing else, is the share of pixels that agree; without,
            the formula is applied as it stands.
        precision: Of a map's values, `float64` or `float32`, on which hangs which values reach a threshold.
    """

    name: str
    normalize: str = "min-max"
    normalize_mae: str = "min-max"
    truth_above: float = 128
    soft_truth: bool = False
    thresholds: int = 256
    f_max: str = "curve"
    average: str = "images"
    centroid: str = "half up"
    empty_truth: bool = True
    precision: str = "float64"


_ALL = (
    Convention("ours"),
    Convention("pysodmetrics", centroid="half even"),
    Convention("matlab", normalize="max", truth_above=127, f_max="precision-recall"),
    Convention(
        "eval-co-sod",
        normalize="min-max or 0",
        normalize_mae="none",
        truth_above=127,
        soft_truth=True,
        thresholds=255,
        centroid="half even, without the last",
        empty_truth=False,
        precision="float32",
    ),
    Convention("cosod3k", average="groups"),
)
CONVENTIONS: Mapping[str, Convention] = {convention.name: convention for convention in _ALL}
"""Those that have a name; `ours` is the default of `lightning-sal score`."""


def convention_of(fields: Mapping[str, Any]) -> Convention:
    """A convention by name, some of its fields changed.

    Args:
        fields: Those of `Convention`; `name` says which one they change, `ours` by default.
    """
    own = CONVENTIONS[fields.get("name", "ours")]
    changed = replace(own, **fields)
    return changed if changed == own else replace(changed, name=f"{own.name}, changed")


def normalized(values: Array, rule: str) -> Array:
    """The values of a map, none of which is without a pixel, by a rule of `NORMALIZATIONS`."""
    return NORMALIZATIONS[rule](values, float(values.min()), float(values.max()))
