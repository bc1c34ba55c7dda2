"""Boundary IoU (Cheng et al. 2021) and multi-scale IoU (Ahmadzadeh et al. 2021) of masks."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from lightning_sal.formulas import boundaries as formulas
from lightning_sal.metrics.functional.arrays import of_arrays
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype

RATIO = formulas.RATIO


def boundary_iou(preds: Tensor, target: Tensor, dilation_ratio: float = RATIO) -> Tensor:
    r"""How far the boundaries of two masks overlap, in [0, 1]; of two without a boundary it is 1.

    .. math:: \frac{|(P_d \cap P) \cap (G_d \cap G)|}{|(P_d \cap P) \cup (G_d \cap G)|}

    with :math:`P_d` and :math:`G_d` the pixels within d of the contour, d = `dilation_ratio` times the diagonal of the
    image, rounded, but at least 1; the edge of the image is contour too. Boundary IoU, Cheng et al. 2021, arXiv:2103.16562,
    with distances in steps of 8 neighbours, as in the authors' code. Computed by scipy, on the CPU.

    Args:
        preds: (B, H, W) predicted masks: bool, or numbers in [0, 1], True where > 0.5.
        target: (B, H, W) true masks, likewise.
        dilation_ratio: Width of a boundary as a share of the image's diagonal, > 0; the authors' is 0.02.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 9, 9)
        >>> target[:, 2:7, 2:7] = 1
        >>> boundary_iou(target.roll(1, 2), target)  # 8 pixels are in both of two rings of 16
        tensor([0.3333])
    """
    return boundary_ious(*as_map_pair(preds, target), dilation_ratio).to(score_dtype(preds))


def boundary_ious(preds: Tensor, target: Tensor, dilation_ratio: float) -> Tensor:
    """`boundary_iou` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    return of_arrays(partial(formulas.boundary_iou, ratio=dilation_ratio), 1, preds > 0.5, target)[:, 0]


def multi_scale_iou(preds: Tensor, target: Tensor) -> Tensor:
    r"""How much of the edges of the object is found, at scales from a pixel to 512 of them; in [0, 1].

    .. math:: \text{MSIoU} = \int_0^1 \frac{|E_s(x) \cap E_s(y)| + 1}{|E_s(y)| + 1} \, ds

    by trapezoids over ten cell sizes 1, 2, 4, ..., 512, with :math:`E_s` the cells that hold a pixel with a Sobel gradient.
    Edges that are predicted beside those of the object cost nothing, and where the object has none it is 1. Multi-scale
    IoU, Ahmadzadeh et al. 2021 (Multiscale IOU), in their code's form. Values are those of PySODMetrics of masks with fewer
    than 2048 pixels of edges; it rounds larger counts to half precision (1e-4). Computed by scipy, on the CPU.

    Args:
        preds: (B, H, W) predicted masks: bool, or numbers in [0, 1], True where > 0.5.
        target: (B, H, W) true masks, likewise.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 32, 32)
        >>> target[:, 4:20, 4:20] = 1
        >>> multi_scale_iou(torch.cat([target, target.roll(2, 2), 0 * target]), target.expand(3, -1, -1))
        tensor([1.0000, 0.9182, 0.2901])
    """
    return multi_scale_ious(*as_map_pair(preds, target)).to(score_dtype(preds))


def multi_scale_ious(preds: Tensor, target: Tensor) -> Tensor:
    """`multi_scale_iou` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    return of_arrays(formulas.multi_scale_iou, 1, preds > 0.5, target)[:, 0]
