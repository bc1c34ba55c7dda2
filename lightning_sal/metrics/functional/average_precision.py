"""Average precision of instances as COCO defines it, from counts of fixed size.

Legend: M predicted and I true instances of one image, T IoU thresholds, N score bins.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_RECALL_POINTS = 101


def match_instances(iou: Tensor, scores: Tensor, thresholds: Tensor) -> Tensor:
    """Which predictions find an instance, greedily from the highest score down.

    Each takes, of the instances that are still free, the one that it overlaps most, if by at least the threshold; of
    equal overlaps the last, of equal scores the first goes first.

    Args:
        iou: (M, I) IoU of every prediction with every instance.
        scores: (M,).
        thresholds: (T,) least IoU of a match.

    Returns:
        (T, M) bool, on the CPU.

    Example:
        >>> import torch
        >>> iou = torch.tensor([[0.6, 0.0], [0.8, 0.0], [0.0, 0.7]])
        >>> match_instances(iou, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0.5, 0.7, 0.75]))
        tensor([[ True, False,  True],
                [False,  True,  True],
                [False,  True, False]])
    """
    overlaps, least = iou.cpu().double().numpy(), thresholds.cpu().double().numpy()
    found = np.zeros((len(least), len(overlaps)), dtype=bool)
    free = np.ones((len(least), overlaps.shape[1]), dtype=bool)
    if not overlaps.size:
        return torch.from_numpy(found)
    rows = np.arange(len(least))
    for m in scores.cpu().argsort(descending=True, stable=True).tolist():
        candidates = np.where(free, overlaps[m], -1.0)
        best = candidates.shape[1] - 1 - candidates[:, ::-1].argmax(1)
        found[:, m] = candidates[rows, best] >= least
        free[rows[found[:, m]], best[found[:, m]]] = False
    return torch.from_numpy(found)


def average_precision(hits: Tensor, alarms: Tensor, instances: Tensor) -> Tensor:
    """Mean precision at recall 0, 0.01, ..., 1, where precision is the best that is reached at that recall or beyond.

    Predictions of one bin enter together.

    Args:
        hits: (T, N) predictions that found an instance, by score bin, lowest first.
        alarms: (T, N) those that did not.
        instances: Number of true instances.

    Returns:
        (T,) float64 in [0, 1], NaN where there is no instance.

    Example:
        >>> import torch
        >>> average_precision(torch.tensor([[1, 0, 1]]), torch.tensor([[0, 1, 0]]), torch.tensor(2))
        tensor([0.8350], dtype=torch.float64)
    """
    # Whole numbers, since CUDA adds floats in no fixed order
    hits, alarms = (counts.long().flip(1).cumsum(1).double() for counts in (hits, alarms))
    recall, precision = hits / instances, hits / (hits + alarms).clamp(min=1)
    best = precision.flip(1).cummax(1).values.flip(1)
    best = torch.cat([best, torch.zeros_like(best[:, :1])], 1)  # beyond the highest recall
    points = torch.linspace(0, 1, _RECALL_POINTS, dtype=torch.float64, device=hits.device).expand(len(hits), -1)
    values = best.gather(1, torch.searchsorted(recall, points.contiguous())).mean(1)
    return torch.where(instances > 0, values, torch.nan)
