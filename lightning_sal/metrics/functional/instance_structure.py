"""The structure-measure of instances, aligned by Hungarian matching (IASM).

Legend: M predicted and I ground-truth instances of one image, L pairs, H x W pixels.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_masks, score_dtype
from lightning_sal.metrics.functional.mask_iou import pairwise_iou
from lightning_sal.metrics.functional.structure import structure_scores


def instance_aligned_structure_measure(preds: Tensor, target: Tensor, iou_threshold: float = 0.1) -> Tensor:
    r"""How alike the predicted and the true instances of an image are, in [0, 1]; neither side's order matters.

    .. math:: \text{IASM} = \frac{1}{L} \sum_{(m, i)} S(P_m, G_i), \quad L = M + I - \#\text{matched}

    over the pairs of a one-to-one matching that maximises the total IoU, of which those with IoU >= `iou_threshold`
    are kept, and over every instance left on either side, paired with an empty mask. S is the structure-measure (Fan
    et al. 2017, arXiv:1708.00786), so an instance left over still earns 1 minus its share of the image where it was
    predicted, and what an empty map earns where it was missed; an empty predicted mask left over earns 1. No instance
    on either side scores 1.

    Args:
        preds: (M, H, W) predicted instances: bool, or numbers in [0, 1], True where > 0.5; M >= 0.
        target: (I, H, W) true instances, likewise; I >= 0.
        iou_threshold: The least IoU of a matched pair, in [0, 1].

    Returns:
        A scalar, on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If the sizes differ, a value is NaN or outside [0, 1] (the message names the instance), or the
            threshold is outside [0, 1].

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 5, 5, dtype=torch.bool)
        >>> target[0, :2, :2] = True
        >>> target[1, 2:4, 2:4] = True
        >>> instance_aligned_structure_measure(target.flip(0), target)
        tensor(1.)
        >>> instance_aligned_structure_measure(target[:1], target)
        tensor(0.8000)
    """
    return instance_score(preds, target, iou_threshold).to(score_dtype(preds))


def instance_score(preds: Tensor, target: Tensor, iou_threshold: float) -> Tensor:
    """`instance_aligned_structure_measure` as a float64 scalar."""
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in [0, 1], not {iou_threshold}")
    preds, target = as_masks(preds, "preds"), as_masks(target, "target")
    if preds.shape[1:] != target.shape[1:]:
        raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must share H and W")
    if not len(preds) and not len(target):
        return torch.ones((), dtype=torch.float64, device=preds.device)
    pairs = _pairs(pairwise_iou(preds, target), iou_threshold).to(preds.device)
    empty = preds.new_zeros(1, *preds.shape[1:])
    preds, target = torch.cat([preds, empty])[pairs[0]], torch.cat([target, empty])[pairs[1]]
    return structure_scores(preds, target).mean()


def _pairs(iou: Tensor, threshold: float) -> Tensor:
    """Indices (2, L) of the pairs, with M and I for the empty mask; `iou` is (M, I)."""
    iou = iou.detach().cpu()
    matched = torch.stack([torch.as_tensor(side) for side in linear_sum_assignment(iou.numpy(), maximize=True)])
    matched = matched[:, iou[matched[0], matched[1]] >= threshold]
    free_preds, free_target = (_missing(side, count) for side, count in zip(matched, iou.shape, strict=True))
    alone = torch.stack([free_preds, torch.full_like(free_preds, iou.shape[1])])
    missed = torch.stack([torch.full_like(free_target, iou.shape[0]), free_target])
    return torch.cat([matched, alone, missed], 1)


def _missing(used: Tensor, count: int) -> Tensor:
    """Those of 0 .. count - 1 that are not in `used`."""
    free = torch.ones(count, dtype=torch.bool)
    free[used] = False
    return free.nonzero().squeeze(1)
