"""The structure-measure as a torchmetrics metric."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.formulas.structure import Moments, structure_of
from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.structure import region_moments


class StructureMeasure(MapMetric):
    r"""Structure-measure (Fan et al. 2017, arXiv:1708.00786), averaged over all images of all ranks.

    .. math:: S = \max(0, \tfrac{1}{2} S_o + \tfrac{1}{2} S_r)

    The terms are those of `lightning_sal.metrics.functional.structure_measure`. `update` takes maps and ground truths
    as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image; `compute` gives a float64 scalar,
    NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import StructureMeasure
        >>> target = torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)
        >>> metric = StructureMeasure()
        >>> metric.update(target, target)
        >>> metric.update([torch.full((2, 5), 0.25)], [torch.zeros(2, 5, dtype=torch.bool)])
        >>> metric.compute()
        tensor(0.8750, dtype=torch.float64)
    """

    values = (("structure", ()),)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return region_moments(preds, target)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return {"structure": structure_of(Moments(*statistics))}

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.mean("structure")
