"""Losses of masks against ground truths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALE, _SMOOTH = 1000.0, 1e-6  # of EVF-SAM's code


def mask_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the pixels of each mask: -mean(t log p + (1 - t) log(1 - p)), p = sigmoid(z).

    Args:
        logits: (N, H, W) z.
        target: (N, H, W) bool or in [0, 1].

    Returns:
        (N,) in nats.
    """
    return F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none").flatten(1).mean(1)


def mask_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss, 1 - (2 sum(p t) / 1000 + 1e-6) / (sum(p) / 1000 + sum(t) / 1000 + 1e-6), p = sigmoid(z).

    As the code of EVF-SAM has it (Zhang et al. 2024, arXiv:2406.20076).

    Args:
        logits: (N, H, W) z.
        target: (N, H, W) bool or in [0, 1].

    Returns:
        (N,) in [0, 1].
    """
    p, t = logits.sigmoid().flatten(1) / _SCALE, target.to(logits).flatten(1)
    return 1 - (2 * (p * t).sum(1) + _SMOOTH) / (p.sum(1) + t.sum(1) / _SCALE + _SMOOTH)


def pairwise_mask_bce(logits: Tensor, target: Tensor) -> Tensor:
    """`mask_bce` of each of E masks against each of N ground truths: mean(softplus(z)) - mean(z t).

    Args:
        logits: (E, H, W) z.
        target: (N, H, W) bool or in [0, 1].

    Returns:
        (E, N) in nats.
    """
    z, t = logits.flatten(1), target.to(logits).flatten(1)
    return F.softplus(z).mean(1, keepdim=True) - z @ t.T / z.shape[1]


def pair_masks(logits: Tensor, target: Tensor, instances: bool) -> tuple[Tensor, Tensor]:
    """Which logits are compared with which ground truth on an image.

    Instances are paired one to one at the least total `pairwise_mask_bce` (Hungarian matching); what is left over on
    either side has no pair. A region is compared with the union of all masks, the largest logit at each pixel.

    Args:
        logits: (E, H, W), one an expression, E >= 1.
        target: (1, H, W) bool of a region, or (I, H, W) of instances.
        instances: Whether each expression is an instance of its own.

    Returns:
        (M, H, W) both: M = 1 for regions, min(E, I) for instances.
    """
    from scipy.optimize import linear_sum_assignment  # the one function here that is not torch's

    if not instances:
        return logits.amax(0, keepdim=True), target
    with torch.no_grad():
        rows, columns = linear_sum_assignment(pairwise_mask_bce(logits, target).cpu().numpy())
    return logits[torch.from_numpy(rows)], target[torch.from_numpy(columns)]
