"""One rule by which maps of another size are brought to that of their ground truth."""

from __future__ import annotations

import numpy as np


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values between pixels, each a mean of the four around it by how near their centres are; none is smoothed away.

    The centre of pixel i of n lies at (i + 1/2) / n of the side, and beyond the outermost centres the values stay. It is
    `cv2.INTER_LINEAR`, and `torch.nn.functional.interpolate` with `align_corners=False, antialias=False`.

    Args:
        values: (h, w) numbers.
        size: (H, W) that is wanted.

    Returns:
        (H, W) float64.
    """
    values = np.asarray(values, dtype=np.float64)
    for axis, (old, new) in enumerate(zip(values.shape, size, strict=True)):
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        below = place.astype(np.intp)
        share = (place - below)[:, None] if axis == 0 else place - below
        lower, upper = (values.take(at, axis) for at in (below, np.minimum(below + 1, old - 1)))
        values = lower + (upper - lower) * share
    return values
