"""Panoptic quality and F1 of instances without classes.

Legend: M predicted and I true instances of one image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lightning_sal.metrics.functional.detection import count_matches, precision_recall_f1
from lightning_sal.metrics.functional.inputs import score_dtype
from lightning_sal.metrics.functional.mask_iou import instance_iou


class PanopticQualities(NamedTuple):
    """Values in [0, 1], of which `pq` is the product of the others.

    Args:
        pq: Panoptic quality.
        sq: Segmentation quality, the mean IoU of matched pairs; 0 where there are none.
        rq: Recognition quality, the F1 of matches.

    Example:
        >>> import torch
        >>> mask = torch.ones(1, 2, 2)
        >>> panoptic_quality(mask, mask).sq
        tensor(1.)
    """

    pq: Tensor
    sq: Tensor
    rq: Tensor


def panoptic_quality(preds: Tensor, target: Tensor) -> PanopticQualities:
    r"""How well the instances of an image are found and how well they are drawn, all of one class.

    .. math:: \text{PQ} = \underbrace{\frac{\sum_{TP} \text{IoU}}{|TP|}}_{\text{SQ}} \cdot
              \underbrace{\frac{|TP|}{|TP| + \frac{1}{2}|FP| + \frac{1}{2}|FN|}}_{\text{RQ}}

    with TP the pairs of one prediction and one instance of IoU > 0.5. Where masks do not overlap each has one partner at
    most; where they do, the most pairs are taken, and of these the ones of the greatest IoU. Panoptic quality, Kirillov et
    al. 2019, arXiv:1801.00868. An image without an instance on either side has no value, NaN.

    Args:
        preds: (M, H, W) predicted instances: bool, or numbers in [0, 1], True where > 0.5; M >= 0.
        target: (I, H, W) true instances, likewise; I >= 0.

    Returns:
        `pq`, `sq` and `rq`, scalars on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If the sizes differ, or a value is NaN or outside [0, 1]; the message names the instance.

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 4, 6)
        >>> target[0, :2, :4] = target[1, 2:, :4] = 1
        >>> preds = target[:1].clone()
        >>> preds[0, :, 3] = 0  # IoU 6/8 with the first, and the second is missed
        >>> panoptic_quality(preds, target)
        PanopticQualities(pq=tensor(0.5000), sq=tensor(0.7500), rq=tensor(0.6667))
    """
    found = qualities(*panoptic_counts(instance_iou(preds, target)).unbind(0))
    return PanopticQualities(*(value.to(preds.device, score_dtype(preds)) for value in found))


def qualities(overlap: Tensor, matches: Tensor, instances: Tensor) -> PanopticQualities:
    """PQ, SQ and RQ from sums over images: of the IoU of matched pairs, of these, and of M + I."""
    sq = overlap / matches.clamp(min=1)
    rq = 2 * matches / instances
    return PanopticQualities(2 * overlap / instances, torch.where(instances > 0, sq, torch.nan), rq)


def panoptic_counts(iou: Tensor) -> Tensor:
    """The sum of the IoU of matched pairs, their number, and M + I, (3,) float64 on the CPU, from IoU (M, I)."""
    values = iou.cpu().double().numpy()
    near = values > 0.5
    # A pair counts more than all IoU together can
    pairs = linear_sum_assignment(np.where(near, sum(values.shape) + values, 0), maximize=True)
    overlaps = values[pairs][near[pairs]]
    return torch.tensor([overlaps.sum(), len(overlaps), sum(values.shape)], dtype=torch.float64)


def instance_f1(preds: Tensor, target: Tensor, iou_threshold: float = 0.5) -> Tensor:
    r"""The F1 of instances without scores, in [0, 1].

    .. math:: F_1 = \frac{2 c}{M + I}

    for c the most pairs of one prediction and one instance with IoU >= `iou_threshold` (Hungarian, so no order matters).
    An image without an instance on either side scores 1.

    Args:
        preds: (M, H, W) predicted instances: bool, or numbers in [0, 1], True where > 0.5; M >= 0.
        target: (I, H, W) true instances, likewise; I >= 0.
        iou_threshold: Least IoU of a pair, in (0, 1].

    Returns:
        A scalar on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If the sizes differ, a value is NaN or outside [0, 1] (the message names the instance), or the
            threshold is outside (0, 1].

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 4, 6)
        >>> target[0, :2, :4] = target[1, 2:, :4] = 1
        >>> instance_f1(target[:1], target)
        tensor(0.6667)
    """
    check_threshold(iou_threshold)
    found = f1_of(instance_iou(preds, target), iou_threshold)
    return found.to(preds.device, score_dtype(preds))


def f1_of(iou: Tensor, threshold: float) -> Tensor:
    """`instance_f1` from IoU (M, I): a float64 scalar on the CPU."""
    counts = torch.tensor([[count_matches(iou, threshold)], [iou.shape[0]], [iou.shape[1]]])
    return precision_recall_f1(*counts)[2, 0]


def check_threshold(threshold: float) -> None:
    """Raise a `ValueError` for a threshold outside of (0, 1]."""
    if not 0 < threshold <= 1:
        raise ValueError(f"iou_threshold must lie in (0, 1], not {threshold}")
