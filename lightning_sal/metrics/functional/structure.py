r"""The structure-measure (Fan et al. 2017, arXiv:1708.00786).

Legend: B samples, H x W pixels; x the map, y the ground truth; fg the object, bg the rest of the image; a quadrant is
one of the 2 x 2 parts into which the centroid of the object cuts the image.

Everything follows from count, mean and M2 (sum of squared deviations) of x over fg and bg of each quadrant. A sum over
quadrants is a product with two indicator matrices, (2, H) and (W, 2), so each sample has its own centroid at no cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.formulas.structure import Moments, structure_of
from lightning_sal.metrics.functional.inputs import as_float64, as_map_pair, by_cache, score_dtype


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
        >>> target = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]])
        >>> preds = torch.tensor([[[0.1, 0.0, 0.0, 0.0], [0.9, 0.8, 0.6, 0.1], [0.0, 0.2, 0.0, 0.0]]])
        >>> structure_measure(preds, target)
        tensor([0.8485])
    """
    return structure_scores(*as_map_pair(preds, target)).to(score_dtype(preds))


def structure_scores(preds: Tensor, target: Tensor) -> Tensor:
    """`structure_measure` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    return structure_of(region_moments(preds, target))


@torch.no_grad()
def region_moments(preds: Tensor, target: Tensor) -> Moments:
    """Moments of maps (B, H, W) by masks (B, H, W) bool."""
    parts = [_moments(*part) for part in zip(by_cache(preds), by_cache(target), strict=True)]
    return Moments(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _moments(preds: Tensor, target: Tensor) -> Moments:
    y = as_float64(target)
    rows, columns = _halves(y.sum(2)), _halves(y.sum(1))  # (B, 2, H), (B, 2, W)

    def quadrants(values: Tensor) -> Tensor:  # (B, H, W) -> (B, 2, 2), the sum over each
        return rows @ values @ columns.mT

    fg_count = quadrants(y)
    count = torch.stack([fg_count, rows.sum(2)[:, :, None] * columns.sum(2)[:, None, :] - fg_count], 1)
    if preds.dtype == torch.bool:  # whole numbers: exact, and x is its own square
        x = as_float64(preds)
        whole, fg = quadrants(x), quadrants(x.mul_(y))
        hits = torch.stack([fg, whole - fg], 1)
        mean = hits / count.clamp(min=1)
        return Moments(count, mean, hits * (1 - mean))

    # Seen from its first pixel a constant quadrant is exactly 0, and so is its variance. Sums of squares of x itself
    # would leave rounding there, and whether a quadrant without object scores 1 or 0 hangs on it.
    samples = torch.arange(len(preds), device=preds.device)[:, None, None]
    first = preds[samples, rows.argmax(2)[:, :, None], columns.argmax(2)[:, None, :]].double()  # (B, 2, 2)
    offsets = preds.to(torch.float64, copy=True).baddbmm_(rows.mT, first @ columns, alpha=-1)
    fg = y.mul_(offsets)  # in place all along: fresh memory costs more than the arithmetic
    bg = offsets.sub_(fg)
    sums = torch.stack([quadrants(fg), quadrants(bg)], 1)
    squares = torch.stack([quadrants(fg.square_()), quadrants(bg.square_())], 1)
    mean = sums / count.clamp(min=1)
    return Moments(count, first[:, None] + mean, (squares - sums * mean).clamp(min=0))


def _halves(profile: Tensor) -> Tensor:
    """Indicators (B, 2, N) of the positions up to the centroid of `profile` (B, N) and of those after it."""
    position = torch.arange(1, profile.shape[1] + 1, device=profile.device, dtype=profile.dtype)
    centroid = (profile @ position / profile.sum(1).clamp(min=1) + 0.5).floor()
    before = (position <= centroid[:, None]).to(profile.dtype)
    return torch.stack([before, 1 - before], 1)
