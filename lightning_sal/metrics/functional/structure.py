r"""The structure-measure (Fan et al. 2017, arXiv:1708.00786).

Legend: B samples, H x W pixels; y the ground truth, x the map; a quadrant is one of the 2 x 2 parts into which the
centroid of the object cuts the image; fg and bg are the object and the rest of it.

Everything follows from count, mean and M2 (sum of squared deviations) of the map over fg and bg of each quadrant, for
which one cut of the image by two small matrices is enough: no loop, no index list, the same work for any centroid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype

_EPS = torch.finfo(torch.float64).eps  # as in the authors' MATLAB code


def structure_measure(preds: Tensor, target: Tensor) -> Tensor:
    r"""How alike the structures of a saliency map and of the object are, in [0, 1], for each of B samples.

    .. math:: S = \max(0, \tfrac{1}{2} S_o + \tfrac{1}{2} S_r)

    .. math:: S_o = \mu_y O(x_{fg}) + (1 - \mu_y) O(1 - x_{bg}), \quad O(z) = \frac{2\bar z}{\bar z^2 + 1 + \sigma_z}

    .. math:: S_r = \sum_{k=1}^{4} w_k \frac{4 \bar x_k \bar y_k \sigma_{xy,k}}
              {(\bar x_k^2 + \bar y_k^2)(\sigma_{x,k}^2 + \sigma_{y,k}^2)}

    with variances over N - 1, :math:`w_k` the share of pixels in quadrant k, and 1 (0) for a quadrant where the
    denominator (only the numerator) vanishes. An object that fills nothing or everything scores
    :math:`1 - \bar x` or :math:`\bar x`. Structure-measure, Fan et al. 2017, arXiv:1708.00786; values are those of the
    authors' MATLAB code: the centroid's halves round up, and its row and column belong to the upper left quadrants.
    Where that code gives NaN (the centroid on the last row or column leaves quadrants without a pixel), the empty
    quadrant counts with its weight, 0. A quadrant of one grey counts as constant, whatever rounding its mean needs.
    Nothing is normalised: values are taken as they are.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)
        >>> preds = torch.tensor([[[0.9, 0.8, 0.1, 0.0], [0.9, 0.6, 0.2, 0.0], [0.1, 0.0, 0.0, 0.0]]])
        >>> structure_measure(preds, target)
        tensor([0.5890])
    """
    return structure_scores(*as_map_pair(preds, target)).to(score_dtype(preds))


def structure_scores(preds: Tensor, target: Tensor) -> Tensor:
    """`structure_measure` of checked maps (B, H, W) float64 and masks (B, H, W) bool: (B,) float64."""
    fg, bg = _cells(preds, target.double())
    whole_fg, whole_bg = _pooled(fg), _pooled(bg)
    share = whole_fg.count / (whole_fg.count + whole_bg.count)
    objects = share * _likeness(whole_fg.mean, whole_fg) + (1 - share) * _likeness(1 - whole_bg.mean, whole_bg)
    scores = (0.5 * objects + 0.5 * _regions(fg, bg)).clamp(min=0)
    scores = torch.where(whole_fg.count == 0, 1 - whole_bg.mean, scores)
    return torch.where(whole_bg.count == 0, whole_fg.mean, scores)


class _Cells(NamedTuple):
    """Moments of the map over a set of pixels each: (B, 2, 2) by quadrant, or (B,)."""

    count: Tensor
    mean: Tensor
    m2: Tensor


def _cells(preds: Tensor, target: Tensor) -> tuple[_Cells, _Cells]:
    """Moments of `preds` in the object and in the rest of each quadrant; both arguments (B, H, W) float64."""
    rows, columns = _halves(target.sum(2)), _halves(target.sum(1))  # (B, 2, H), (B, 2, W)

    def total(values: Tensor) -> Tensor:  # (B, H, W) -> (B, 2, 2), the sum over each quadrant
        return rows @ values @ columns.mT

    # Seen from its first pixel a constant quadrant is exactly 0, so its variance is too; sums of squares would leave
    # rounding there, and the score jumps from 1 to 0 on it.
    samples = torch.arange(len(preds), device=preds.device)[:, None, None]
    first = preds[samples, rows.argmax(2)[:, :, None], columns.argmax(2)[:, None, :]]  # (B, 2, 2)
    offsets = preds - rows.mT @ first @ columns
    fg_offsets = offsets * target
    bg_offsets = offsets - fg_offsets
    fg_count = total(target)
    bg_count = rows.sum(2)[:, :, None] * columns.sum(2)[:, None, :] - fg_count

    def cells(count: Tensor, part: Tensor) -> _Cells:
        mean = total(part) / count.clamp(min=1)
        m2 = total(part * part) - count * mean.square()
        return _Cells(count, first + mean, m2.clamp(min=0))

    return cells(fg_count, fg_offsets), cells(bg_count, bg_offsets)


def _halves(profile: Tensor) -> Tensor:
    """Indicators (B, 2, N) float64 of the positions up to the centroid of `profile` (B, N) and of those after it."""
    position = torch.arange(1, profile.shape[1] + 1, device=profile.device, dtype=profile.dtype)
    centroid = ((profile * position).sum(1, keepdim=True) / profile.sum(1, keepdim=True).clamp(min=1) + 0.5).floor()
    before = position <= centroid
    return torch.stack([before, ~before], 1).to(profile.dtype)


def _pooled(cells: _Cells) -> _Cells:
    """The moments over all four quadrants together, (B,)."""
    count = cells.count.sum((1, 2))
    mean = (cells.count * cells.mean).sum((1, 2)) / count.clamp(min=1)
    m2 = (cells.m2 + cells.count * (cells.mean - mean[:, None, None]).square()).sum((1, 2))
    return _Cells(count, mean, m2)


def _likeness(mean: Tensor, cells: _Cells) -> Tensor:
    """O(z), of pixels that should all be 1 and have this mean (B,)."""
    sigma = (cells.m2 / (cells.count - 1).clamp(min=1)).sqrt()
    return 2 * mean / (mean.square() + 1 + sigma + _EPS)


def _regions(fg: _Cells, bg: _Cells) -> Tensor:
    """S_r (B,): the similarity of the quadrants, each weighted by its share of the pixels."""
    count = fg.count + bg.count
    size, degrees = count.clamp(min=1), (count - 1).clamp(min=1)
    x, y = (fg.count * fg.mean + bg.count * bg.mean) / size, fg.count / size
    step = fg.mean - bg.mean
    var_y = fg.count * bg.count / size / degrees  # exactly 0, and so the covariance, where fg or bg is missing
    var_x = (fg.m2 + bg.m2) / degrees + var_y * step.square()
    numerator = 4 * x * y * var_y * step
    denominator = (x.square() + y.square()) * (var_x + var_y)
    flat = (denominator == 0).to(x.dtype)
    similarity = torch.where(numerator != 0, numerator / (denominator + _EPS), flat)
    return (similarity * count).sum((1, 2)) / count.sum((1, 2))
