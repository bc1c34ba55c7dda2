"""Images of bytes resized to the same bytes on every device.

On the CPU `torch.nn.functional.interpolate` resizes bytes in whole numbers: along a row, then along a column, each time with
weights in fixed point and rounded to bytes. CUDA has no such kernel, and floats that are rounded once at the end give
other bytes: a sixth of them on photographs, by up to 13 grey levels where the first pass cut an overshoot off at 255. Here
the same sums are done by operations that every device has.

Legend: B images, H x W their pixels, n values of a row or column, m after it was resized, K of them that are summed for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.transfer import moved

Kernel = Literal["bilinear", "bicubic"]
_RADIUS = {"bilinear": 1, "bicubic": 2}
_MOST_BITS = 22  # of a weight behind the point; it has to fit into 16 bits in all


def resize_bytes(images: Tensor, size: Sequence[int], kernel: Kernel, *, antialias: bool) -> Tensor:
    """What the CPU's `interpolate` makes of images of bytes, on the device of the images and without a wait for it.

    Args:
        images: (B, 3, H, W) uint8.
        size: (H', W').
        kernel: What weighs neighbours; the bicubic one without antialiasing is not offered, since nothing here uses it.
        antialias: Whether the kernel is widened where an image becomes smaller, as Pillow does it.

    Returns:
        (B, 3, H', W') uint8.
    """
    if images.device.type == "cpu":
        return F.interpolate(images, tuple(size), mode=kernel, align_corners=False, antialias=antialias)
    return resize_in_integers(images, size, kernel, antialias=antialias)


def resize_in_integers(images: Tensor, size: Sequence[int], kernel: Kernel, *, antialias: bool) -> Tensor:
    """`resize_bytes` as it is done where the CPU's kernel is not; arguments and result are the same."""
    for dim, wanted in ((3, size[1]), (2, size[0])):
        if images.shape[dim] == wanted:
            continue
        places, weights, bits = _table(images.shape[dim], wanted, kernel, antialias)
        places, weights = moved(places, images.device), moved(weights, images.device)
        total: Tensor | int = 1 << (bits - 1)  # a half, so that cutting off rounds
        for place, weight in zip(places, weights, strict=True):
            total = images.index_select(dim, place) * (weight if dim == 3 else weight[:, None]) + total
        assert isinstance(total, Tensor)
        images = (total >> bits).clamp_(0, 255).to(torch.uint8)
    return images


@lru_cache(maxsize=256)
def _table(n: int, m: int, kernel: Kernel, antialias: bool) -> tuple[Tensor, Tensor, int]:
    """Which values are summed with which weights, as `UpSampleKernel.cpp` of ATen has it.

    Returns:
        (K, m) places in [0, n), (K, m) int32 weights, and how many of their bits stand behind the point.
    """
    places, weights = _antialiased(n, m, kernel) if antialias else _two_neighbours(n, m)
    largest = float(weights.max())
    bits = next((bits for bits in range(_MOST_BITS) if int(0.5 + largest * (2 << bits)) >= 1 << 15), _MOST_BITS)
    scaled = weights * (1 << bits)
    fixed = torch.where(scaled < 0, scaled - 0.5, scaled + 0.5).to(torch.int32)  # to the nearest, ties away from zero
    return places.T.contiguous(), fixed.T.contiguous(), bits


def _two_neighbours(n: int, m: int) -> tuple[Tensor, Tensor]:
    """(m, 2) places and weights of bilinear interpolation, centres of pixels at halves."""
    at = ((torch.arange(m, dtype=torch.float64) + 0.5) * (n / m) - 0.5).clamp(min=0)
    first = at.long().clamp(max=n - 1)
    share = (at - first).clamp(0, 1)
    near, far = 1 - share, 1 - (1 - share).abs()
    last = first == n - 1
    weights = torch.stack([torch.where(last, near + far, near), torch.where(last, 0.0, far)], dim=1)
    return torch.stack([first, (first + 1).clamp(max=n - 1)], dim=1), weights


def _antialiased(n: int, m: int, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """(m, K) places and weights of Pillow's resizing: all values under the widened kernel, whose weights add up to 1."""
    scale = n / m
    radius, narrower = _RADIUS[kernel] * max(scale, 1.0), 1 / max(scale, 1.0)
    centre = scale * (torch.arange(m, dtype=torch.float64) + 0.5)
    first = (centre - radius + 0.5).long().clamp(min=0)
    count = (centre + radius + 0.5).long().clamp(max=n) - first
    taps = torch.arange(int(count.max()))
    places = first[:, None] + taps
    weights = _weigh[kernel](((places - centre[:, None] + 0.5) * narrower).abs())
    weights = torch.where(taps < count[:, None], weights, 0.0)
    return places.clamp(max=n - 1), weights / weights.sum(1, keepdim=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys's kernel at distances x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


_weigh = {"bilinear": _triangle, "bicubic": _cubic}
