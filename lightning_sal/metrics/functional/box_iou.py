"""Intersection over union of boxes, and the share of an image that a box covers.

Legend: M predicted and I true boxes of one image of H x W pixels. A box is x0, y0, x1, y1, its width x1 - x0: no pixel is
added, as in COCO evaluation. A reversed box covers nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.metrics.functional.mask_iou import over_union


def box_iou(preds: Tensor, target: Tensor, crowd: Tensor | None = None) -> Tensor:
    r"""How far every predicted box overlaps with every true one, in [0, 1].

    .. math:: \text{IoU}(a, b) = \frac{|a \cap b|}{|a| + |b| - |a \cap b|}

    with areas of real rectangles; two boxes that both cover nothing have IoU 0.

    Args:
        preds: (M, 4) x0, y0, x1, y1, M >= 0.
        target: (I, 4), likewise, in the same units.
        crowd: (I,) bool, which of the true are crowds: there the overlap is taken over the area of the prediction, as in
            COCO evaluation; None where none is.

    Returns:
        (M, I) float64, on the device of `preds`.

    Raises:
        ValueError: If a shape is not (N, 4), or a coordinate is not finite; the message names the box.

    Example:
        >>> import torch
        >>> box_iou(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0]]))
        tensor([[0.3333, 0.0000]], dtype=torch.float64)
    """
    preds, target = as_boxes(preds, "preds"), as_boxes(target, "target")
    low = torch.maximum(preds[:, None, :2], target[:, :2])
    high = torch.minimum(preds[:, None, 2:], target[:, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)  # (M, I)
    return over_union(overlap, _areas(preds)[:, None], _areas(target), crowd)


def area_shares(boxes: Tensor, height: int, width: int) -> Tensor:
    """The share of an image that each box covers, in [0, 1]: a score for boxes that come without one.

    What lies off the image is cut off. For whole coordinates it is a whole number of pixels over H W.

    Args:
        boxes: (M, 4) x0, y0, x1, y1 in pixels, M >= 0.
        height: H, rows of the image, > 0.
        width: W, columns of the image, > 0.

    Returns:
        (M,) float64, on the device of `boxes`.

    Raises:
        ValueError: If the shape is not (M, 4), or a coordinate is not finite; the message names the box.

    Example:
        >>> import torch
        >>> area_shares(torch.tensor([[0.0, 0.0, 5.0, 4.0], [8.0, -1.0, 12.0, 5.0]]), height=10, width=10)
        tensor([0.2000, 0.1000], dtype=torch.float64)
    """
    inside = as_boxes(boxes, "boxes").clone()
    inside[:, 0::2] = inside[:, 0::2].clamp(0, width)
    inside[:, 1::2] = inside[:, 1::2].clamp(0, height)
    return _areas(inside) / (height * width)


def as_boxes(boxes: Tensor, name: str) -> Tensor:
    """Check boxes.

    Args:
        boxes: (N, 4) of any real dtype, N >= 0.
        name: What messages call them.

    Returns:
        (N, 4) float64.

    Raises:
        ValueError: If the shape is not (N, 4), or a coordinate is not finite.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have the shape (N, 4), x0, y0, x1, y1 each, not {tuple(boxes.shape)}")
    finite = boxes.isfinite().all(1)
    if not finite.all():
        index = int(finite.int().argmin())
        raise ValueError(f"{name}[{index}] is {boxes[index].tolist()}; its coordinates must be finite")
    return boxes.double()


def _areas(boxes: Tensor) -> Tensor:
    """(N,) areas of boxes (N, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1)
