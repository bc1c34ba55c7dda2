"""The structure-measure of instances, aligned by Hungarian matching: IASM, and its share that matched pairs earn.

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


def matched_structure_measure(preds: Tensor, target: Tensor, iou_threshold: float = 0.1) -> Tensor:
    r"""How well the instances of an image are found, in [0, 1]: what only matched pairs earn of IASM.

    .. math:: \frac{1}{L} \sum_{(m, i)\ \text{matched}} S(P_m, G_i), \quad L = M + I - \#\text{matched}

    An instance that was missed and a prediction of nothing that is there both earn 0 and both enlarge L; so does an empty
    predicted mask. S is the structure-measure (Fan et al. 2017, arXiv:1708.00786). Pairs are those of a one-to-one matching
    that maximises the total IoU among pairs with IoU >= `iou_threshold`: unlike in
    `instance_aligned_structure_measure`, whose matching minds smaller overlaps before it drops them, a prediction without
    such a pair changes nothing but L. No instance on either side scores 1.

    Args:
        preds: (M, H, W) predicted instances: bool, or numbers in [0, 1], True where > 0.5; M >= 0.
        target: (I, H, W) true instances, likewise; I >= 0.
        iou_threshold: The least IoU of a matched pair, in (0, 1].

    Returns:
        A scalar, on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If the sizes differ, a value is NaN or outside [0, 1] (the message names the instance), or the
            threshold is outside (0, 1].

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 5, 5, dtype=torch.bool)
        >>> target[0, :2, :2] = True
        >>> target[1, 2:4, 2:4] = True
        >>> matched_structure_measure(target.flip(0), target)
        tensor(1.)
        >>> matched_structure_measure(target[:1], target)
        tensor(0.5000)
        >>> matched_structure_measure(torch.cat([target, torch.zeros(2, 5, 5)]), target)
        tensor(0.5000)
    """
    return matched_score(preds, target, iou_threshold).to(score_dtype(preds))


def instance_score(preds: Tensor, target: Tensor, iou_threshold: float) -> Tensor:
    """`instance_aligned_structure_measure` as a float64 scalar."""
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in [0, 1], not {iou_threshold}")
    preds, target = _instances(preds, target)
    if not len(preds) and not len(target):
        return torch.ones((), dtype=torch.float64, device=preds.device)
    iou = pairwise_iou(preds, target).cpu()
    pairs = _with_those_left(_matched(iou, iou_threshold), iou.shape).to(preds.device, non_blocking=True)
    empty = preds.new_zeros(1, *preds.shape[1:])
    preds, target = torch.cat([preds, empty])[pairs[0]], torch.cat([target, empty])[pairs[1]]
    return structure_scores(preds, target).mean()


def matched_score(preds: Tensor, target: Tensor, iou_threshold: float) -> Tensor:
    """`matched_structure_measure` as a float64 scalar."""
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in (0, 1], not {iou_threshold}")
    preds, target = _instances(preds, target)
    if not len(preds) and not len(target):
        return torch.ones((), dtype=torch.float64, device=preds.device)
    iou = pairwise_iou(preds, target).cpu()
    fits = iou >= iou_threshold
    # What fits nowhere is left out before the matching, so that it cannot settle a tie between others.
    rows, columns = fits.any(1).nonzero().squeeze(1), fits.any(0).nonzero().squeeze(1)
    pairs = _matched(iou.where(fits, 0)[rows][:, columns], iou_threshold)
    preds_used, target_used = (
        of[at].to(preds.device, non_blocking=True) for of, at in zip((rows, columns), pairs, strict=True)
    )
    scores = structure_scores(preds[preds_used], target[target_used])
    return scores.sum() / (len(preds) + len(target) - pairs.shape[1])


def _instances(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides, checked, as bool."""
    preds, target = as_masks(preds, "preds"), as_masks(target, "target")
    if preds.shape[1:] != target.shape[1:]:
        raise ValueError(f"preds {tuple(preds.shape)} and target {tuple(target.shape)} must share H and W")
    return preds, target


def _matched(iou: Tensor, threshold: float) -> Tensor:
    """Indices (2, matched) of the pairs that reach the threshold in the matching of the largest total; `iou` is (M, I)."""
    pairs = torch.stack([torch.as_tensor(side) for side in linear_sum_assignment(iou.numpy(), maximize=True)])
    return pairs[:, iou[pairs[0], pairs[1]] >= threshold]


def _with_those_left(matched: Tensor, shape: torch.Size) -> Tensor:
    """Indices (2, L) of all pairs, those left on either side paired with M or I, which is the empty mask."""
    free_preds, free_target = (_missing(side, count) for side, count in zip(matched, shape, strict=True))
    alone = torch.stack([free_preds, torch.full_like(free_preds, shape[1])])
    missed = torch.stack([torch.full_like(free_target, shape[0]), free_target])
    return torch.cat([matched, alone, missed], 1)


def _missing(used: Tensor, count: int) -> Tensor:
    """Those of 0 .. count - 1 that are not in `used`."""
    free = torch.ones(count, dtype=torch.bool)
    free[used] = False
    return free.nonzero().squeeze(1)
