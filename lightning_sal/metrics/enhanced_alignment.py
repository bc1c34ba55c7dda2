"""The enhanced-alignment measure as a torchmetrics metric."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.formulas.thresholds import ThresholdCounts, enhanced_alignment
from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, threshold_counts


class EnhancedAlignmentMeasure(MapMetric):
    r"""Enhanced-alignment measure (Fan et al. 2018, arXiv:1805.10421) over all images of all ranks.

    The measure at each threshold is that of `lightning_sal.metrics.functional.enhanced_alignment_curve`, averaged over
    images. `compute` gives float64 scalars: `e_max` and `e_mean`, the maximum and the mean of that averaged curve over
    256 thresholds, and `e_adaptive`, at twice the mean of each map. `update` takes maps and ground truths as (B, H, W),
    or as lists of (H, W) whose sizes may differ from image to image. NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import EnhancedAlignmentMeasure
        >>> target = torch.zeros(1, 10, 10, dtype=torch.bool)
        >>> target[:, :5] = True
        >>> metric = EnhancedAlignmentMeasure()
        >>> metric.update(target, target)
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'e_max': 1.01, 'e_mean': 1.007, 'e_adaptive': 1.01}
    """

    plot_upper_bound = None  # a perfect map scores HW / (HW - 1)
    values = (("enhanced_alignment", (ADAPTIVE + 1,)),)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return threshold_counts(preds, target)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return {"enhanced_alignment": enhanced_alignment(ThresholdCounts(*statistics))}

    def compute(self) -> dict[str, Tensor]:
        """`e_max`, `e_mean` and `e_adaptive`."""
        return summary("e", self.mean("enhanced_alignment"))


def summary(name: str, values: Tensor) -> dict[str, Tensor]:
    """Maximum and mean of curves (..., 256), and the value at the adaptive threshold that follows them."""
    curve, adaptive = values[..., :ADAPTIVE], values[..., ADAPTIVE]
    return {f"{name}_max": curve.amax(-1), f"{name}_mean": curve.mean(-1), f"{name}_adaptive": adaptive}
