"""Boxes as masks, so that whatever is measured against masks is measured against boxes too."""

from __future__ import annotations

import torch
from torch import Tensor


def boxes_to_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    r"""The pixels that any of N boxes covers, its ends included.

    Pixel (x, y) is inside where :math:`\lfloor x_0 \rfloor \le x \le \lfloor x_1 \rfloor` and likewise for y. What lies
    off the image is cut off; a reversed box covers nothing.

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels, N >= 0. Coordinates that were multiplied by a size are best float64: in
            float32 0.29 of 100 is 29, in float64 a little less, pixel 28.
        height: H, rows of the mask, > 0.
        width: W, columns of the mask, > 0.

    Returns:
        (H, W) bool, on the device of `boxes`.

    Raises:
        ValueError: If the shape is not (N, 4), or a coordinate is not finite; the message names the box.

    Example:
        >>> import torch
        >>> boxes_to_mask(torch.tensor([[0.9, 0.0, 1.2, 0.4], [3.5, -2.0, 9.0, 0.0]]), height=2, width=5).int()
        tensor([[1, 1, 0, 1, 1],
                [0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have the shape (N, 4), x0, y0, x1, y1 each, not {tuple(boxes.shape)}")
    finite = boxes.isfinite().all(1)
    if not finite.all():
        index = int(finite.int().argmin())
        raise ValueError(f"boxes[{index}] is {boxes[index].tolist()}; its coordinates must be finite")
    x0, y0, x1, y1 = boxes.floor()[..., None].unbind(1)  # (N, 1) each
    rows, columns = (torch.arange(size, device=boxes.device) for size in (height, width))
    in_rows, in_columns = (rows >= y0) & (rows <= y1), (columns >= x0) & (columns <= x1)
    return (in_rows[:, :, None] & in_columns[:, None]).any(0)
