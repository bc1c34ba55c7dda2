"""The mean absolute error of saliency maps."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.metrics.functional.inputs import as_map_pair, by_cache, score_dtype


def mean_absolute_error(preds: Tensor, target: Tensor) -> Tensor:
    r"""How far a saliency map is from the ground truth, averaged over the pixels of each of B samples; in [0, 1].

    .. math:: \text{MAE} = \frac{1}{HW} \sum_{i,j} |x_{ij} - y_{ij}|

    As used for saliency since Perazzi et al. 2012 (Saliency filters). Nothing is normalised.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> mean_absolute_error(torch.tensor([[[0.5, 0.0], [1.0, 0.25]]]), torch.tensor([[[1, 0], [1, 0]]]))
        tensor([0.1875])
    """
    return absolute_errors(*as_map_pair(preds, target)).to(score_dtype(preds))


def absolute_errors(preds: Tensor, target: Tensor) -> Tensor:
    """`mean_absolute_error` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    pairs = zip(by_cache(preds), by_cache(target), strict=True)
    # in place where it can be: fresh memory costs more than the arithmetic
    return torch.cat([x.to(torch.float64, copy=True).sub_(y.view(torch.uint8)).abs_().mean((1, 2)) for x, y in pairs])
