"""Precision, recall and F-measure of saliency maps over thresholds."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_sal.formulas.thresholds import BETA2, f_measures
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, threshold_counts


class FMeasureCurves(NamedTuple):
    """Values in [0, 1] at each threshold.

    Args:
        precision: (B, 256) share of the predicted pixels that are the object's.
        recall: (B, 256) share of the object's pixels that are predicted.
        f_measure: (B, 256).

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[1, 0]]])
        >>> f_measure_curves(mask, mask).f_measure[0, [0, 1, 255]]
        tensor([0.5652, 1.0000, 1.0000])
    """

    precision: Tensor
    recall: Tensor
    f_measure: Tensor


def f_measure_curves(preds: Tensor, target: Tensor, beta2: float = BETA2) -> FMeasureCurves:
    r"""Precision, recall and F-measure of a map binarised at each of 256 thresholds.

    .. math:: F = \frac{(1 + \beta^2) P R}{\beta^2 P + R}

    at thresholds t = 0 .. 255 (a pixel is predicted where :math:`\lfloor 255 x \rfloor \ge t`); what would divide by 0
    is 0. F-measure for saliency, Achanta et al. 2009 (Frequency-tuned salient region detection).

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.
        beta2: Weight of precision, > 0; 0.3 is the field's.

    Returns:
        (B, 256) each, on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[1, 1, 0, 0]]])
        >>> curves = f_measure_curves(torch.tensor([[[1.0, 0.2, 0.6, 0.0]]]), target)
        >>> curves.precision[0, [0, 51, 100, 255]], curves.recall[0, [0, 51, 100, 255]]
        (tensor([0.5000, 0.6667, 0.5000, 1.0000]), tensor([1.0000, 1.0000, 0.5000, 0.5000]))
    """
    curves = f_measures(threshold_counts(*as_map_pair(preds, target)), beta2)
    return FMeasureCurves(*(values[:, :ADAPTIVE].to(score_dtype(preds)) for values in curves))


def adaptive_f_measure(preds: Tensor, target: Tensor, beta2: float = BETA2) -> Tensor:
    """The F-measure of a map binarised at twice its mean, at most 1.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.
        beta2: Weight of precision, > 0; 0.3 is the field's.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> adaptive_f_measure(torch.tensor([[[0.9, 0.1, 0.0]]]), torch.tensor([[[1, 1, 0]]]))
        tensor([0.8125])
    """
    curves = f_measures(threshold_counts(*as_map_pair(preds, target)), beta2)
    return curves.f_measure[:, ADAPTIVE].to(score_dtype(preds))
