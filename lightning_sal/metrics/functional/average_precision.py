"""Average precision of instances as COCO defines it.

Legend: B images, M predicted and I true instances of one image, T IoU thresholds, N predictions of all images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ALARM, HIT, IGNORED = range(3)  # what becomes of a prediction

_RECALL_POINTS = np.linspace(
    0, 1, 101
)  # COCO's own to the last bit, which torch's are not: recalls are often equal to one
_MOST = 1 - 1e-10  # of a threshold, as in COCO: an IoU of 1 may be rounded


def match_instances(iou: Tensor, scores: Tensor, thresholds: Tensor, crowd: Tensor | None = None) -> Tensor:
    """What becomes of each prediction, greedily from the highest score down.

    Each takes, of the instances that are still free, the one that it overlaps most, if by at least the threshold; of
    equal overlaps the last, of equal scores the first goes first. One that takes none is a false alarm, unless it lies on a
    crowd: it is ignored then. A crowd takes any number of predictions.

    Args:
        iou: (M, I) IoU of every prediction with every instance, and with a crowd the share of the prediction in it.
        scores: (M,).
        thresholds: (T,) least IoU of a match.
        crowd: (I,) bool, which of the true are crowds; None where none is.

    Returns:
        (T, M) uint8 on the CPU: 0 for a false alarm, 1 for what finds an instance, 2 for what is ignored.

    Example:
        >>> import torch
        >>> iou = torch.tensor([[0.6, 0.0, 0.2], [0.8, 0.0, 0.1], [0.0, 0.7, 1.0], [0.0, 0.0, 0.9]])
        >>> scores, thresholds = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0.5, 0.7, 0.75])
        >>> match_instances(iou, scores, thresholds, torch.tensor([False, False, True]))
        tensor([[1, 0, 1, 2],
                [0, 1, 1, 2],
                [0, 1, 2, 2]], dtype=torch.uint8)
    """
    order = (-scores.cpu().double()).argsort(stable=True)
    among = torch.zeros(iou.shape[1], dtype=torch.bool) if crowd is None else crowd.cpu()
    (ranked,) = match_ranked([iou.cpu().double()[order].numpy()], [among.numpy()], thresholds.cpu().double().numpy())
    outcomes = np.empty_like(ranked)
    outcomes[:, order.numpy()] = ranked
    return torch.from_numpy(outcomes)


def match_ranked(ious: Sequence[np.ndarray], crowds: Sequence[np.ndarray], thresholds: np.ndarray) -> list[np.ndarray]:
    """`match_instances` of B images at once, whose predictions stand from the highest score down.

    Args:
        ious: B times (M, I) float64.
        crowds: B times (I,) bool.
        thresholds: (T,).

    Returns:
        B times (T, M) uint8.
    """
    least, (most, true) = np.minimum(thresholds, _MOST), np.max([iou.shape for iou in ious], axis=0)
    overlaps, among = np.zeros((len(ious), most, true)), np.zeros((len(ious), 1, true), dtype=bool)
    for at, (iou, crowd) in enumerate(zip(ious, crowds, strict=True)):
        overlaps[at, : iou.shape[0], : iou.shape[1]] = iou
        among[at, 0, : len(crowd)] = crowd
    on_crowd = (overlaps * among).max(2, initial=0)[:, None] >= least[:, None]  # (B, T, M)
    outcomes = np.where(on_crowd, np.uint8(IGNORED), np.uint8(ALARM))
    overlaps = (overlaps * ~among)[..., ::-1]  # argmax takes the first of equal ones
    near = overlaps.max(2, initial=0) >= least.min()
    free = np.ones((len(ious), len(least), true), dtype=bool)
    for rank in range(most):
        images = np.flatnonzero(near[:, rank])
        if not len(images):
            continue
        candidates = free[images] * overlaps[images, rank, None]  # (B, T, I)
        best = candidates.argmax(2)
        at, threshold = np.nonzero(candidates.max(2) >= least)
        outcomes[images[at], threshold, rank] = HIT
        free[images[at], threshold, best[at, threshold]] = False
    return [found[:, : len(iou)] for found, iou in zip(outcomes, ious, strict=True)]


def average_precision(scores: Tensor, outcomes: Tensor, instances: Tensor) -> Tensor:
    """Mean precision at recall 0, 0.01, ..., 1, where precision is the best that is reached at that recall or beyond.

    Predictions of equal scores enter together, which is the least that any order of them gives.

    Args:
        scores: (N,) any finite numbers.
        outcomes: (T, N) what became of each prediction, as `match_instances` has it.
        instances: Number of true instances, without crowds.

    Returns:
        (T,) float64 in [0, 1], NaN where there is no instance.

    Example:
        >>> import torch
        >>> average_precision(torch.tensor([0.3, 0.9, 0.5]), torch.tensor([[1, 1, 0]]), torch.tensor(2))
        tensor([0.8350], dtype=torch.float64)
    """
    scores, order = scores.sort(descending=True)
    last = F.pad(scores[1:] != scores[:-1], (0, 1), value=True)[: len(scores)]  # of each score
    # Whole numbers, since CUDA adds floats in no fixed order
    hits, alarms = ((outcomes[:, order] == kind).cumsum(1)[:, last].double() for kind in (HIT, ALARM))
    recall, precision = hits / instances.to(hits.device), F.pad(hits / (hits + alarms).clamp(min=1), (0, 1))
    best = precision.flip(1).cummax(1).values.flip(1)  # 0 beyond the highest recall
    points = torch.from_numpy(_RECALL_POINTS).to(hits.device).repeat(len(hits), 1)
    values = best.gather(1, torch.searchsorted(recall, points)).mean(1)
    return torch.where(instances.to(hits.device) > 0, values, torch.nan)
