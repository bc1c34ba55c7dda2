"""Hits and false alarms of saliency maps over thresholds, from one histogram a map; E and F follow from them.

Legend: B samples, H x W pixels, T = 257 thresholds: t / 255 for t = 0 .. 255, and last the adaptive one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.formulas.thresholds import ThresholdCounts
from lightning_sal.metrics.functional.inputs import by_cache

LEVELS = 256
ADAPTIVE = 256  # the column of the adaptive threshold; the columns before it are the curve


@torch.no_grad()
def threshold_counts(preds: Tensor, target: Tensor, mean: Tensor | None = None) -> ThresholdCounts:
    """Counts of checked maps (B, H, W) and masks (B, H, W) bool.

    A value x reaches t / 255 where floor(255 x) >= t, in the precision of the map; the adaptive threshold, twice the
    mean of the map but at most 1, is compared with the values themselves (Achanta et al. 2009).

    Args:
        preds: The maps.
        target: The masks.
        mean: (B,) the means of the maps, float64, where they are known already.
    """
    size = preds[0].numel() if len(preds) else 1
    mean = preds.sum((1, 2), dtype=torch.float64) / size if mean is None else mean
    adaptive = (2 * mean).clamp(max=1)[:, None, None]
    parts = by_cache(preds)
    chunks = zip(parts, by_cache(target), adaptive.split(max(1, len(parts[0]))), strict=True)
    counts = torch.cat([_histograms(*chunk) for chunk in chunks])  # (B, 2 reaches, 2 object, 256)
    below, reaching = counts.unbind(1)
    curve = (below + reaching).flip(2).cumsum(2).flip(2)  # (B, 2, 256); whole, since CUDA adds floats in no fixed order
    alarms, hits = torch.cat([curve, reaching.sum(2, keepdim=True)], 2).double().unbind(1)
    return ThresholdCounts(hits, alarms, hits[:, 0], mean.new_full((len(preds),), size))


def _histograms(preds: Tensor, target: Tensor, adaptive: Tensor) -> Tensor:
    """(B, 2, 2, 256) pixels by whether they reach the adaptive threshold, whether they are the object's, and level."""
    count = len(preds)
    if not preds.is_floating_point():
        preds = preds.to(torch.int32)
    code = preds.mul(LEVELS - 1).to(torch.int32)
    code += target.view(torch.uint8).to(torch.int32) << 8
    code += _reaches(preds, adaptive).view(torch.uint8).to(torch.int32) << 9
    code += (torch.arange(count, device=code.device, dtype=torch.int32) << 10)[:, None, None]
    return torch.bincount(code.flatten(), minlength=count << 10).view(count, 2, 2, LEVELS)


def _reaches(preds: Tensor, threshold: Tensor) -> Tensor:
    """`preds >= threshold` as exactly as if `preds` were float64, without the copy."""
    if not preds.is_floating_point():
        return preds >= threshold
    near = threshold.to(preds.dtype)
    up = torch.nextafter(near, torch.ones_like(near))
    return preds >= torch.where(near.double() < threshold, up, near)
