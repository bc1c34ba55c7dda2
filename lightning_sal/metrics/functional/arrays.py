"""Measures of one image as arrays, for batches of tensors: what needs scipy is computed on the CPU, image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def of_arrays(function: Callable[[Any, Any], Any], width: int, preds: Tensor, target: Tensor) -> Tensor:
    """Values of checked maps (B, H, W) and masks (B, H, W) bool, (B, `width`) float64 on the device of the maps.

    Args:
        function: An image's map, bool or floats, and its mask as arrays (H, W) -> `width` numbers.
        width: How many.
        preds: The maps.
        target: The masks.
    """
    if preds.dtype != torch.bool and (not preds.is_floating_point() or preds.dtype == torch.bfloat16):
        preds = preds.float()  # arrays have no such floats
    pairs = zip(preds.cpu().numpy(), target.cpu().numpy(), strict=True)
    rows = np.array([function(*pair) for pair in pairs], dtype=np.float64).reshape(len(preds), width)
    return torch.from_numpy(rows).to(preds.device)
