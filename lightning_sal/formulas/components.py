"""Size-invariant measures (Li et al. 2024, arXiv:2405.09782): every object of an image counts alike, however large.

Legend: H x W pixels, K objects, T = 257 thresholds: t / 255 for t = 0 .. 255, and last twice the mean.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightning_sal.formulas.contours import Mask, labelled
from lightning_sal.formulas.thresholds import ThresholdCounts, f_measures

Values = NDArray[np.float64]
Map = NDArray[np.floating[Any]]
Box = tuple[slice, slice]

LEAST = 50  # pixels of an object, the authors' value
_LEVELS = 256


class SizeInvariant(NamedTuple):
    """`mae`, and of each object the F-measure at each threshold, `f_measure` (K, T); of an image without object as if it
    were one."""

    mae: float
    f_measure: Values


def size_invariant(preds: Map, mask: Mask) -> SizeInvariant:
    """Of a map (H, W); see `lightning_sal.metrics.functional.size_invariant_measures`."""
    boxes = object_boxes(mask)
    error = np.abs(preds.astype(np.float64) - mask)
    f_measure = f_measures(_counts(preds, mask, boxes or [(slice(None), slice(None))])).f_measure
    if not boxes:
        return SizeInvariant(float(error.mean()), f_measure)
    covered = np.zeros_like(mask)
    for box in boxes:
        covered[box] = True
    area = np.count_nonzero(covered)
    # The rest weighs as many objects as it is times as large as what the boxes cover
    total = sum(error[box].mean() for box in boxes) + error[~covered].sum() / area
    return SizeInvariant(float(total / (len(boxes) + (mask.size - area) / area)), f_measure)


def size_invariant_values(preds: Map, mask: Mask) -> dict[str, float]:
    """The MAE; and means over objects, of the maximum and the mean of their F over thresholds and of F at twice the mean."""
    mae, f_measure = size_invariant(preds, mask)
    curves = f_measure[:, :-1]
    return {
        "si_mae": mae,
        "si_f_max": float(curves.max(1).mean()),
        "si_f_mean": float(curves.mean()),
        "si_f_adaptive": float(f_measure[:, -1].mean()),
    }


def object_boxes(mask: Mask) -> list[Box]:
    """The boxes of the 4-connected regions of at least 50 pixels; where none is, of the largest ones."""
    labels, count = labelled(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    least = min(LEAST, sizes.max(initial=0))
    return [box for box, size in zip(ndimage.find_objects(labels), sizes, strict=True) if size >= least]


def _counts(preds: Map, mask: Mask, boxes: list[Box]) -> ThresholdCounts:
    """Counts (K, T) of a map of which everything outside of a box is 0."""
    hits, alarms = np.zeros((2, len(boxes), _LEVELS + 1))
    for row, box in enumerate(boxes):
        values, true = preds[box], mask[box]
        beside = mask.size - true.size
        adaptive = min(2 * values.sum(dtype=np.float64) / mask.size, 1)
        reached = values >= adaptive
        for counts, chosen, zeros in ((hits, true, 0), (alarms, ~true, beside)):
            levels = np.bincount((values[chosen] * (_LEVELS - 1)).astype(np.uint8), minlength=_LEVELS)
            levels[0] += zeros
            counts[row, :-1] = levels[::-1].cumsum()[::-1]
            counts[row, -1] = np.count_nonzero(reached & chosen) + (zeros if adaptive <= 0 else 0)
    return ThresholdCounts(hits, alarms, hits[:, 0], np.full(len(boxes), float(mask.size)))
