"""The weighted F-measure (Margolin et al. 2014)."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_float64, as_map_pair, by_cache, score_dtype

_EPS = torch.finfo(torch.float64).eps  # as in the authors' MATLAB code
_RADIUS, _SIGMA = 3, 5.0  # of the Gaussian that blurs errors within the object
_BELL = [math.exp(-(place**2) / (2 * _SIGMA**2)) for place in range(-_RADIUS, _RADIUS + 1)]
_KERNEL = [value / sum(_BELL) for value in _BELL]
_DECAY = math.log(0.5) / 5  # an error 5 pixels beside the object weighs 1.5


def weighted_f_measure(preds: Tensor, target: Tensor, beta2: float = 1.0) -> Tensor:
    r"""The F-measure of a soft map, in which errors count by where they lie.

    .. math:: F^w = \frac{(1 + \beta^2) P^w R^w}{\beta^2 P^w + R^w}

    Errors within the object are blurred (a wrong pixel among right ones is forgiven), errors beside it weigh from 1 at
    its edge to 2 far away. An empty ground truth scores 0. Margolin et al. 2014 (How to evaluate foreground maps); as
    in their code :math:`\beta^2 = 1`. The nearest pixel of the object comes from scipy, on the CPU; the rest is computed
    on the tensors' own device.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.
        beta2: Weight of precision, > 0.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 9, 9)
        >>> target[:, 3:6, 3:6] = 1
        >>> weighted_f_measure(target, target), weighted_f_measure(1 - target, target)
        (tensor([1.]), tensor([0.]))
    """
    return weighted_f_scores(*as_map_pair(preds, target), beta2).to(score_dtype(preds))


@torch.no_grad()
def weighted_f_scores(preds: Tensor, target: Tensor, beta2: float) -> Tensor:
    """`weighted_f_measure` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    return torch.cat([_scores(*part, beta2) for part in zip(by_cache(preds), by_cache(target), strict=True)])


def _scores(preds: Tensor, target: Tensor, beta2: float) -> Tensor:
    distance, nearest = _to_object(target)
    error = (as_float64(preds) - as_float64(target)).abs_()
    edge = error.flatten(1).gather(1, nearest.flatten(1)).view_as(error)  # beside the object, that of its nearest pixel
    blurred = _blur(edge)
    inside = torch.minimum(error, blurred)
    missed = (inside * target).sum((1, 2))
    alarms = (error * (2 - (_DECAY * distance).exp()) * ~target).sum((1, 2))
    size = target.sum((1, 2)).double()
    hits = size - missed
    recall, precision = 1 - missed / size.clamp(min=1), hits / (hits + alarms + _EPS)
    scores = (1 + beta2) * recall * precision / (recall + beta2 * precision + _EPS)
    return torch.where(size > 0, scores, 0.0)


def _to_object(target: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pixel, the distance to the object in pixels and the flat index of the object's nearest pixel."""
    distances, indices = [], []
    for mask in target.cpu().numpy():
        if mask.any():
            distance, (row, column) = cast(Any, distance_transform_edt(~mask, return_indices=True))
        else:
            distance, row, column = np.zeros(mask.shape), *np.indices(mask.shape)
        distances.append(torch.from_numpy(distance))
        indices.append(torch.from_numpy(row.astype(np.int64) * mask.shape[1] + column))
    if not distances:
        return target.double(), target.long()
    return torch.stack(distances).to(target.device), torch.stack(indices).to(target.device)


def _blur(values: Tensor) -> Tensor:
    """(B, H, W) after a 7 x 7 Gaussian of sigma 5 with zeros around, one axis after the other."""
    for dim, padding in ((1, (0, 0, _RADIUS, _RADIUS)), (2, (_RADIUS, _RADIUS))):
        padded, values = F.pad(values, padding), torch.zeros_like(values)
        for place, weight in enumerate(_KERNEL):  # shifted sums: convolutions of float64 are slow on a CPU
            values.add_(padded.narrow(dim, place, values.shape[dim]), alpha=weight)
    return values
