"""The enhanced-alignment measure (Fan et al. 2018, arXiv:1805.10421)."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.formulas.thresholds import enhanced_alignment
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, threshold_counts


def enhanced_alignment_curve(preds: Tensor, target: Tensor) -> Tensor:
    r"""How well a map, binarised at each of 256 thresholds, aligns with the object, pixel by pixel and as a whole.

    .. math:: E = \frac{1}{HW - 1} \sum_{i,j} \frac{(1 + \xi_{ij})^2}{4}, \quad
              \xi = \frac{2 (x - \bar x)(y - \bar y)}{(x - \bar x)^2 + (y - \bar y)^2}

    with x the map at thresholds t = 0 .. 255 (True where :math:`\lfloor 255 x \rfloor \ge t`) and y the ground truth. An
    object that fills nothing or everything scores the share of pixels that agree with it. The divisor HW - 1 is that of
    the authors' code, so that a perfect map scores HW / (HW - 1). Enhanced-alignment measure, Fan et al. 2018,
    arXiv:1805.10421.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        (B, 256), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 0]]])
        >>> enhanced_alignment_curve(0.5 * target, target)[0, [0, 127, 128]]
        tensor([0.2857, 1.1429, 0.2857])
    """
    counts = threshold_counts(*as_map_pair(preds, target))
    return enhanced_alignment(counts)[:, :ADAPTIVE].to(score_dtype(preds))


def adaptive_enhanced_alignment(preds: Tensor, target: Tensor) -> Tensor:
    """The enhanced-alignment measure of a map binarised at twice its mean, at most 1.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> adaptive_enhanced_alignment(torch.tensor([[[0.9, 0.1, 0.0]]]), torch.tensor([[[1, 0, 0]]]))
        tensor([1.5000])
    """
    counts = threshold_counts(*as_map_pair(preds, target))
    return enhanced_alignment(counts)[:, ADAPTIVE].to(score_dtype(preds))
