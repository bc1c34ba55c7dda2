"""Intersection over union of masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_float64, as_masks, score_dtype


def mask_iou(preds: Tensor, target: Tensor) -> Tensor:
    """How far predicted and true masks overlap, in [0, 1]; two empty masks score 1.

    Args:
        preds: (B, H, W) predicted masks: bool, or numbers in [0, 1], True where > 0.5.
        target: (B, H, W) true masks, likewise.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> mask_iou(torch.tensor([[[1, 1, 0]], [[0, 0, 0]]]), torch.tensor([[[1, 0, 0]], [[0, 0, 0]]]))
        tensor([0.5000, 1.0000])
    """
    if preds.shape != target.shape:
        raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must have the same shape")
    overlap, union = overlap_and_union(as_masks(preds, "preds"), as_masks(target, "target"))
    return torch.where(union > 0, overlap / union.clamp(min=1), 1.0).to(score_dtype(preds))


def overlap_and_union(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in both and in either of masks (B, H, W) bool: (B,) float64 each."""
    return (preds & target).sum((1, 2)).double(), (preds | target).sum((1, 2)).double()


def instance_iou(preds: Tensor, target: Tensor, crowd: Tensor | None = None) -> Tensor:
    """IoU of every predicted with every true instance, (M, I) float64, see `over_union`.

    Raises:
        ValueError: If the sizes differ, or a value is NaN or outside [0, 1]; the message names the instance.
    """
    preds, target = as_masks(preds, "preds"), as_masks(target, "target")
    if preds.shape[1:] != target.shape[1:]:
        raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must share H and W")
    return (packed_iou if preds.device.type == "cpu" else pairwise_iou)(preds, target, crowd)


def pairwise_iou(preds: Tensor, target: Tensor, crowd: Tensor | None = None) -> Tensor:
    """IoU of every mask (M, H, W) with every other (I, H, W), both bool: (M, I) float64, see `over_union`."""
    preds, target = as_float64(preds).flatten(1), as_float64(target).flatten(1)
    return over_union(preds @ target.T, preds.sum(1)[:, None], target.sum(1), crowd)


def packed_iou(preds: Tensor, target: Tensor, crowd: Tensor | None = None) -> Tensor:
    """`pairwise_iou` on the CPU, eight times as fast: 64 pixels a word, overlaps by population count."""
    ours, theirs = _packed(preds), _packed(target)
    overlap = np.bitwise_count(ours[:, None] & theirs).sum(2, dtype=np.int64)
    area, other = (torch.from_numpy(np.bitwise_count(words).sum(1, dtype=np.int64)) for words in (ours, theirs))
    return over_union(torch.from_numpy(overlap), area[:, None], other, crowd)


def over_union(overlap: Tensor, preds: Tensor, target: Tensor, crowd: Tensor | None) -> Tensor:
    """IoU by areas, whose shapes broadcast, float64; 0 where nothing is covered.

    Args:
        overlap: Area that a prediction shares with a truth.
        preds: Area of the prediction.
        target: Area of the truth.
        crowd: Whether the truth is a crowd: the overlap is taken over the area of the prediction then, as in COCO
            evaluation; None where none is.
    """
    union = preds + target - overlap
    if crowd is not None:
        union = torch.where(crowd.to(union.device), preds, union)
    return torch.where(union > 0, overlap.double() / torch.where(union > 0, union, 1), 0.0)


def _packed(masks: Tensor) -> np.ndarray:
    """(N, words) uint64 of masks (N, H, W) bool, on the CPU."""
    size = masks.shape[1] * masks.shape[2]
    packed = np.zeros((len(masks), -(-size // 64) * 8), dtype=np.uint8)
    packed[:, : -(-size // 8)] = np.packbits(masks.cpu().numpy().reshape(len(masks), size), axis=1)
    return packed.view(np.uint64)
