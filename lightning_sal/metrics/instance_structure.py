"""The structure-measures of instances as torchmetrics metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from lightning_sal.metrics.base import InstanceMean
from lightning_sal.metrics.functional.instance_structure import instance_score, matched_score


class _StructureMean(InstanceMean):
    """Mean over all images of all ranks of a structure-measure of their instances, NaN if no rank has seen an image."""

    score: ClassVar[Callable[[Tensor, Tensor, float], Tensor]]

    def __init__(self, iou_threshold: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.iou_threshold = iou_threshold

    @property
    def names(self) -> tuple[str, ...]:
        return (self.values[0][0],)

    def of_image(self, preds: Tensor, target: Tensor) -> Tensor:
        return type(self).score(preds, target, self.iou_threshold)[None]

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.mean(self.values[0][0])


class InstanceAlignedStructureMeasure(_StructureMean):
    r"""Instance-aligned structure-measure (IASM), averaged over all images of all ranks.

    .. math:: \text{IASM} = \frac{1}{L} \sum_{(m, i)} S(P_m, G_i), \quad L = M + I - \#\text{matched}

    S is the structure-measure (Fan et al. 2017, arXiv:1708.00786); how instances are paired is said at
    `lightning_sal.metrics.functional.instance_aligned_structure_measure`. `update` takes the predicted (M, H, W) and
    the true instances (I, H, W) of one image, or lists of them, one entry an image; M, I, H and W may differ from image
    to image. `compute` gives a float64 scalar, NaN if no rank has seen an image.

    Args:
        iou_threshold: The least IoU of a matched pair, in [0, 1].
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import InstanceAlignedStructureMeasure
        >>> target = torch.zeros(2, 5, 5, dtype=torch.bool)
        >>> target[0, :2, :2] = True
        >>> target[1, 2:4, 2:4] = True
        >>> metric = InstanceAlignedStructureMeasure()
        >>> metric.update([target.flip(0), target[:1]], [target, target])
        >>> metric.compute()
        tensor(0.9000, dtype=torch.float64)
    """

    values = (("instance_structure", ()),)
    score = staticmethod(instance_score)


class MatchedStructureMeasure(_StructureMean):
    r"""What matched pairs alone earn of the instance-aligned structure-measure, averaged over all images of all ranks.

    .. math:: \frac{1}{L} \sum_{(m, i)\ \text{matched}} S(P_m, G_i), \quad L = M + I - \#\text{matched}

    S is the structure-measure (Fan et al. 2017, arXiv:1708.00786); how instances are paired is said at
    `lightning_sal.metrics.functional.matched_structure_measure`. `update` and `compute` are those of
    `InstanceAlignedStructureMeasure`.

    Args:
        iou_threshold: The least IoU of a matched pair, in (0, 1].
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import MatchedStructureMeasure
        >>> target = torch.zeros(2, 5, 5, dtype=torch.bool)
        >>> target[0, :2, :2] = True
        >>> target[1, 2:4, 2:4] = True
        >>> metric = MatchedStructureMeasure()
        >>> metric.update([target.flip(0), target[:1]], [target, target])
        >>> metric.compute()
        tensor(0.7500, dtype=torch.float64)
    """

    values = (("matched_structure", ()),)
    score = staticmethod(matched_score)
