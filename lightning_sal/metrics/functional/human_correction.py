"""The human correction effort of masks (Qin et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.formulas.corrections import human_correction_effort as of_image
from lightning_sal.metrics.functional.arrays import of_arrays
from lightning_sal.metrics.functional.inputs import as_map_pair, score_dtype


def human_correction_effort(preds: Tensor, target: Tensor) -> Tensor:
    r"""How many clicks would mend a mask: points along the borders that are wrong, and regions that are wrong as a whole.

    .. math:: \text{HCE}_\gamma = \text{points}(FP') + \text{regions}(FP') + \text{points}(FN') + \text{regions}(FN')

    with FP' and FN' the pixels that a map has beside the object and that it lacks, without those within
    :math:`\gamma = 5` steps of an edge; what it lacks of the object's skeleton always counts. Points are the vertices of
    polygons that stay within 2 pixels of the borders (Douglas & Peucker 1973). Whole numbers >= 0, of which less is better;
    they grow with the size of the image. Human correction effort, Qin et al. 2022, arXiv:2203.03041. Values are those of
    PySODMetrics on OpenCV since its pull request 28119 of December 2025: before, OpenCV measured distances to straight lines
    without end, which gives some points more or less. Computed by scipy and scikit-image, on the CPU.

    Args:
        preds: (B, H, W) saliency maps: bool, or numbers in [0, 1], True where > 0.5.
        target: (B, H, W) ground truths, likewise.

    Returns:
        (B,), on the device of `preds`: float64 if `preds` is, else float32.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.

    Example:
        >>> import torch
        >>> target = torch.zeros(2, 40, 40)
        >>> target[:, 5:35, 5:35] = 1
        >>> preds = target.clone()
        >>> preds[1, 15:35, 25:35] = 0  # what is missing: a corner, and the two ends of its way around it
        >>> human_correction_effort(preds, target)
        tensor([0., 3.])
    """
    return correction_efforts(*as_map_pair(preds, target)).to(score_dtype(preds))


def correction_efforts(preds: Tensor, target: Tensor) -> Tensor:
    """`human_correction_effort` of checked maps (B, H, W) and masks (B, H, W) bool: (B,) float64."""
    return of_arrays(of_image, 1, preds > 0.5, target)[:, 0]
