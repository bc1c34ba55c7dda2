"""Size-invariant MAE and F-measure of saliency maps (Li et al. 2024)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_sal.formulas.components import size_invariant_values
from lightning_sal.metrics.functional.arrays import of_arrays
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype


class SizeInvariantScores(NamedTuple):
    """Values in [0, 1] of B images.

    Args:
        si_mae: (B,) of which less is better.
        si_f_max: (B,) mean over objects of their greatest F over thresholds.
        si_f_mean: (B,) mean over objects and thresholds.
        si_f_adaptive: (B,) mean over objects of their F at twice the mean.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[[1, 0]]])
        >>> size_invariant_measures(mask, mask).si_mae
        tensor([0.])
    """

    si_mae: Tensor
    si_f_max: Tensor
    si_f_mean: Tensor
    si_f_adaptive: Tensor


def size_invariant_measures(preds: Tensor, target: Tensor) -> SizeInvariantScores:
    r"""MAE and F-measure in which every object of an image counts alike, however large it is.

    .. math:: \text{SI-MAE} = \frac{1}{K + \alpha} \left(\sum_{k=1}^{K} \text{MAE}(B_k) + \alpha \, \text{MAE}(B_0)\right),
              \quad \text{SI-F} = \frac{1}{K} \sum_{k=1}^{K} F(x \cdot B_k, y \cdot B_k)

    with :math:`B_k` the boxes of the 4-connected regions of the ground truth of at least 50 pixels (where none is, of the
    largest), :math:`B_0` what no box covers and :math:`\alpha` its size over that of the rest. F, of
    :math:`\beta^2 = 0.3`, sees 0 outside of a box; its maximum and mean are over the 256 thresholds, each object's own, as
    in the authors' code. An image without object counts as a whole. Size-invariant measures, Li et al. 2024,
    arXiv:2405.09782. Values are those of PySODMetrics where it has some: of boxes that cover the whole image its SI-MAE
    is NaN, and of more than 53 objects it loses some. Computed by scipy, on the CPU.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1].
        target: (B, H, W) ground truths: bool, or numbers in [0, 1], True where > 0.5.

    Returns:
        (B,) each, on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 40, 40)
        >>> target[:, :20, :20] = target[:, 30:, 30:] = 1
        >>> preds = target.clone()
        >>> preds[:, 30:, 30:] = 0  # of two objects the small one is missed
        >>> found = size_invariant_measures(preds, target)
        >>> found.si_mae, found.si_f_max
        (tensor([0.2381]), tensor([0.5399]))
    """
    found = size_invariant_scores(*as_map_pair(preds, target)).to(score_dtype(preds))
    return SizeInvariantScores(*found.unbind(1))


def size_invariant_scores(preds: Tensor, target: Tensor) -> Tensor:
    """`size_invariant_measures` of checked maps (B, H, W) and masks (B, H, W) bool: (B, 4) float64."""
    return of_arrays(
        lambda pred, mask: [*size_invariant_values(pred, mask).values()],
        len(SizeInvariantScores._fields),
        preds,
        target,
    )
