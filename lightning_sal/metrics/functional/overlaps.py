"""IoU, Dice, balanced error rate and specificity of saliency maps over thresholds, and areas under their curves."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.formulas.overlaps import Areas, Overlaps, areas, overlaps
from lightning_sal.formulas.thresholds import ThresholdCounts
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, threshold_counts


def overlap_curves(preds: Tensor, target: Tensor) -> Overlaps:
    r"""IoU, Dice, balanced error rate and specificity of a map binarised at each of 256 thresholds.

    .. math:: \text{IoU} = \frac{TP}{TP + FP + FN}, \quad \text{Dice} = \frac{2 TP}{2 TP + FP + FN}

    .. math:: \text{specificity} = \frac{TN}{TN + FP}, \quad
              \text{BER} = 1 - \tfrac{1}{2} \left(\frac{TP}{TP + FN} + \frac{TN}{TN + FP}\right)

    at thresholds t = 0 .. 255 (a pixel is predicted where :math:`\lfloor 255 x \rfloor \ge t`); what would divide by 0
    is 0. Jaccard 1912 and Dice 1945; the balanced error rate as in shadow detection (Vicente et al. 2016). Values are those
    of PySODMetrics.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        `iou`, `dice`, `ber` and `specificity`, (B, 256) each, on the device of `preds`: float64 if `preds` is, else
        float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> curves = overlap_curves(torch.tensor([[[1.0, 0.2, 0.6, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]]))
        >>> curves.iou[0, [0, 51, 100, 255]], curves.ber[0, [0, 51, 100, 255]]
        (tensor([0.5000, 0.6667, 0.3333, 0.5000]), tensor([0.5000, 0.2500, 0.5000, 0.2500]))
    """
    curves = overlaps(threshold_counts(*as_map_pair(preds, target)))
    return Overlaps(*(values[:, :ADAPTIVE].to(score_dtype(preds)) for values in curves))


def adaptive_overlaps(preds: Tensor, target: Tensor) -> Overlaps:
    """IoU, Dice, balanced error rate and specificity of a map binarised at twice its mean, at most 1.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        `iou`, `dice`, `ber` and `specificity`, (B,) each, on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> adaptive_overlaps(torch.tensor([[[0.9, 0.1, 0.0]]]), torch.tensor([[[1, 1, 0]]])).dice
        tensor([0.6667])
    """
    curves = overlaps(threshold_counts(*as_map_pair(preds, target)))
    return Overlaps(*(values[:, ADAPTIVE].to(score_dtype(preds)) for values in curves))


def curve_areas(preds: Tensor, target: Tensor) -> Areas:
    r"""The areas under precision over recall, and under the rate of hits over that of false alarms (ROC).

    .. math:: \text{AUC}_{PR} = \sum_t (R_t - R_{t+1}) P_t, \quad
              \text{AUC}_{ROC} = \sum_t (\text{FPR}_t - \text{FPR}_{t+1}) \frac{\text{TPR}_t + \text{TPR}_{t+1}}{2}

    over thresholds t = 0 .. 255 (a pixel is predicted where :math:`\lfloor 255 x \rfloor \ge t`), above which nothing is
    predicted. The first is the average precision: precision does not run straight between thresholds (Davis & Goadrich
    2006). The second is the probability that a pixel of the object has the higher value of one beside it, ties counted
    half. An image without object has 0 under precision; where the object is nothing or everything ROC has the area of
    chance, 0.5. Both are scikit-learn's values of maps in 8 bits.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        `auc_pr` and `auc_roc`, (B,) each, on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> found = curve_areas(torch.tensor([[[1.0, 0.2, 0.6, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]]))
        >>> found.auc_pr, found.auc_roc
        (tensor([0.8333]), tensor([0.7500]))
    """
    found = curve_areas_of(threshold_counts(*as_map_pair(preds, target)))
    return Areas(*(values.to(score_dtype(preds)) for values in found))


def curve_areas_of(counts: ThresholdCounts) -> Areas:
    """`curve_areas` from counts whose last column is that of the adaptive threshold: (B,) float64 each."""
    return areas(counts._replace(hits=counts.hits[:, :ADAPTIVE], alarms=counts.alarms[:, :ADAPTIVE]))
