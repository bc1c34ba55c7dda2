"""All measures of one saliency map that need its pixels and take a while, for arrays."""

from __future__ import annotations

import numpy as np

from lightning_sal.formulas.arrays import Array
from lightning_sal.formulas.boundaries import boundary_iou, multi_scale_iou
from lightning_sal.formulas.components import size_invariant_values
from lightning_sal.formulas.context import context_measure
from lightning_sal.formulas.corrections import human_correction_effort


def extra_values(preds: Array, mask: Array) -> dict[str, float]:
    """By the names that tasks of regions know them by; over several images each is their mean.

    Args:
        preds: (H, W) floats in [0, 1], an array or a tensor on the CPU.
        mask: (H, W) bool, likewise.
    """
    preds, mask = np.asarray(preds), np.asarray(mask)
    found = preds > 0.5
    return {
        "hce": float(human_correction_effort(found, mask)),
        "context": context_measure(preds, mask),
        **size_invariant_values(preds, mask),
        "boundary_iou": boundary_iou(found, mask),
        "msiou": multi_scale_iou(found, mask),
    }
