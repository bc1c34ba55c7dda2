"""What the metrics accept: maps and masks in [0, 1], equally large; everything else is refused by name.

Legend: B samples, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CACHE_PIXELS = 2**17


def as_map_pair(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check B saliency maps against B ground truths.

    Args:
        preds: (B, H, W) of any real dtype, values in [0, 1].
        target: (B, H, W) of any real dtype, values in [0, 1], True where > 0.5.

    Returns:
        The maps as they are and the ground truths as bool, both (B, H, W).

    Raises:
        ValueError: If the shapes differ or are not (B, H, W) with pixels, or a value is NaN or outside [0, 1].
    """
    if preds.shape != target.shape:
        raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must have the same shape")
    _check(preds, "preds")
    return preds, as_masks(target, "target")


def as_attributions(maps: Tensor, target: Tensor | None = None) -> Tensor:
    """Check B attribution maps, whose values have no range, for what is measured against B targets or none.

    Args:
        maps: (B, H, W) of any real dtype.
        target: Of the shape of `maps`, or None.

    Returns:
        The maps as they are.

    Raises:
        ValueError: If the shapes differ or are not (B, H, W) with pixels, or a value is not finite.
    """
    if target is not None and maps.shape != target.shape:
        raise ValueError(f"maps {tuple(maps.shape)} and target {tuple(target.shape)} must have the same shape")
    _check_shape(maps, "maps")
    finite = maps.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(f"maps[{int(finite.int().argmin())}] has values that are not finite")
    return maps


def min_max(preds: Tensor) -> Tensor:
    """Checked maps (B, H, W) stretched to [0, 1] each, float64; a constant map stays as it is."""
    preds = as_float64(preds)
    if not len(preds):
        return preds
    low, high = preds.amin((1, 2), keepdim=True), preds.amax((1, 2), keepdim=True)
    return torch.where(high > low, (preds - low) / (high - low), preds)


def as_masks(masks: Tensor, name: str) -> Tensor:
    """Check B masks and threshold them.

    Args:
        masks: (B, H, W) of any real dtype, values in [0, 1], True where > 0.5.
        name: What messages call them.

    Returns:
        (B, H, W) bool.

    Raises:
        ValueError: If the shape is not (B, H, W) with pixels, or a value is NaN or outside [0, 1].
    """
    _check(masks, name)
    return masks if masks.dtype == torch.bool else masks > 0.5


def as_float64(values: Tensor) -> Tensor:
    """A float64 copy of a mask, or `values` itself where it is float64 already."""
    return (values.view(torch.uint8) if values.dtype == torch.bool else values).double()  # bool casts 3 times as slow


def by_cache(maps: Tensor) -> tuple[Tensor, ...]:
    """(B, H, W) in parts whose float64 copies stay in a CPU core's cache; on other devices all at once.

    A CPU takes 1.5 to 3 times as long for what leaves its cache.
    """
    size = maps.shape[1] * maps.shape[2]
    return maps.split(max(1, _CACHE_PIXELS // size) if maps.device.type == "cpu" else max(1, len(maps)))


def score_dtype(preds: Tensor) -> torch.dtype:
    """The dtype of a score: float64 for float64 maps, else float32; on the way everything is float64."""
    return torch.float64 if preds.dtype == torch.float64 else torch.float32


def _check(values: Tensor, name: str) -> None:
    _check_shape(values, name)
    if values.dtype == torch.bool or len(values) == 0:
        return
    low, high = values.detach().amin((1, 2)), values.detach().amax((1, 2))
    good = (low >= 0) & (high <= 1)  # False for NaN, which amin and amax hand on
    if not good.all():
        index = int(good.int().argmin())
        raise ValueError(
            f"{name}[{index}] has values from {low[index].item():g} to {high[index].item():g}; "
            f"they must lie in [0, 1] and not be NaN (divide 8-bit values by 255)"
        )


def _check_shape(values: Tensor, name: str) -> None:
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise ValueError(f"{name} must have the shape (B, H, W) with at least one pixel, not {tuple(values.shape)}")
