"""The context measure of saliency maps (Wang et al. 2025)."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.formulas.context import context_measure as of_image
from lightning_sal.metrics.functional.arrays import of_arrays
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype


def context_measure(preds: Tensor, target: Tensor) -> Tensor:
    r"""Whether what a map predicts lies amid the object, and whether the object lies amid what it predicts; in [0, 1].

    .. math:: C = \frac{2 P R}{P + R}, \quad P = \frac{\sum x \, (K * y)}{\sum x}, \quad
              R = \frac{1}{\sum y} \sum y \, \frac{1 - e^{-K * x}}{1 - e^{-1}}

    with x the map, y the ground truth, and K a Gaussian kernel shaped as the object lies, whose deviations are those of its
    pixels, scaled to 6 pixels together. Context measure, Wang et al. 2025, arXiv:2512.07076, without the degree of
    camouflage, which needs the photograph. Values are those of PySODMetrics, but for its single precision of K * y (1e-7).
    Of an object that is a slanted line, where it has no inverse, the kernel is the line. A perfect map does not reach 1,
    since pixels at the edge lie amid others. Computed by scipy, on the CPU.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 20, 20)
        >>> target[:, 5:15, 5:15] = 1
        >>> context_measure(target * torch.tensor([1.0, 0.5])[:, None, None], target)
        tensor([0.5030, 0.3725])
    """
    return context_measures(*as_map_pair(preds, target)).to(score_dtype(preds))


def context_measures(preds: Tensor, target: Tensor) -> Tensor:
    """`context_measure` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    return of_arrays(of_image, 1, preds, target)[:, 0]
