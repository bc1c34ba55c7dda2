"""How far the boundaries of masks overlap: boundary IoU and multi-scale IoU.

Legend: H x W pixels.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from lightning_sal.formulas.contours import Mask

RATIO, SCALES = 0.02, 10  # the authors' values


def boundary_iou(pred: Mask, mask: Mask, ratio: float = RATIO) -> float:
    """The IoU of the inner boundaries of two masks; see `lightning_sal.metrics.functional.boundary_iou`."""
    width = max(1, round(ratio * math.hypot(*mask.shape)))
    ours, theirs = (inner_boundary(side, width) for side in (pred, mask))
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else 1.0


def inner_boundary(mask: Mask, width: int) -> Mask:
    """Pixels of a mask at most `width` steps of 8 neighbours from a pixel that is not in it; beyond the image none is."""
    core = ndimage.minimum_filter(mask.view(np.uint8), size=2 * width + 1, mode="constant", cval=0)
    return mask & (core == 0)


def multi_scale_iou(pred: Mask, mask: Mask) -> float:
    """The multi-scale IoU of two masks; see `lightning_sal.metrics.functional.multi_scale_iou`."""
    ours, theirs = (_edges(side) for side in (pred, mask))
    ratios = []
    for scale in range(SCALES):
        if scale:
            ours, theirs = (_halved(side) for side in (ours, theirs))
        ratios.append((np.count_nonzero(ours & theirs) + 1) / (np.count_nonzero(theirs) + 1))
    return (sum(ratios) - (ratios[0] + ratios[-1]) / 2) / (SCALES - 1)  # by trapezoids


def _edges(mask: Mask) -> Mask:
    """Pixels with a gradient, beyond the image there is nothing."""
    down, right = (ndimage.sobel(mask.astype(np.int32), axis=axis, mode="constant") for axis in (0, 1))
    return np.logical_or(down, right)


def _halved(cells: Mask) -> Mask:
    """Whether anything is in each 2 x 2 cells, counted from the lower right."""
    rows, columns = (side % 2 for side in cells.shape)
    cells = np.pad(cells, ((rows, 0), (columns, 0)))
    return np.any(cells.reshape(cells.shape[0] // 2, 2, cells.shape[1] // 2, 2), axis=(1, 3))
