"""Size-invariant MAE and F-measure as a torchmetrics metric."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.size_invariance import SizeInvariantScores, size_invariant_scores


class SizeInvariantMeasures(MapMetric):
    """Size-invariant MAE and F-measure (Li et al. 2024, arXiv:2405.09782), averaged over all images of all ranks.

    The measures of an image are those of `lightning_sal.metrics.functional.size_invariant_measures`. `compute` gives float64
    scalars: `si_mae`, of which less is better, `si_f_max`, `si_f_mean` and `si_f_adaptive`. Unlike those of `FMeasure` the
    maximum is each object's own. `update` takes maps and ground truths as (B, H, W), or as lists of (H, W) whose sizes may
    differ from image to image. NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import SizeInvariantMeasures
        >>> target = torch.zeros(1, 40, 40)
        >>> target[:, :20, :20] = target[:, 30:, 30:] = 1
        >>> preds = target.clone()
        >>> preds[:, 30:, 30:] = 0  # of two objects the small one is missed
        >>> metric = SizeInvariantMeasures()
        >>> metric.update(preds, target)
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'si_mae': 0.238, 'si_f_max': 0.54, 'si_f_mean': 0.499, 'si_f_adaptive': 0.54}
    """

    higher_is_better = None
    values = tuple((name, ()) for name in SizeInvariantScores._fields)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return size_invariant_scores(preds, target).unbind(1)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return SizeInvariantScores(*statistics)._asdict()

    def compute(self) -> dict[str, Tensor]:
        """`si_mae`, `si_f_max`, `si_f_mean` and `si_f_adaptive`."""
        return {name: self.mean(name) for name, _ in self.values}
