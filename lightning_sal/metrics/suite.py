"""All metrics of saliency maps at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_sal.formulas.structure import Moments, pooled, structure_of
from lightning_sal.formulas.thresholds import BETA2, ThresholdCounts, enhanced_alignment, f_measures
from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.enhanced_alignment import summary
from lightning_sal.metrics.functional.structure import region_moments
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, threshold_counts
from lightning_sal.metrics.functional.weighted_f_measure import weighted_f_scores


class SaliencySuite(MapMetric):
    """S, E, F and MAE of saliency maps in one pass over the pixels: what they have in common is computed once.

    `compute` gives float64 scalars: `s_measure`, `mae`, `e_max`, `e_mean`, `e_adaptive`, `f_max`, `f_mean`, `f_adaptive`,
    and `weighted_f` where it is asked for; they equal those of `StructureMeasure`, `MeanAbsoluteError`,
    `EnhancedAlignmentMeasure`, `FMeasure` and `WeightedFMeasure`. `image_values` gives those of each image. `update`
    takes maps and ground truths as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image. NaN if no
    rank has seen an image.

    Args:
        weighted_f: Whether the weighted F-measure is wanted too; it costs several times all others together.
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import SaliencySuite
        >>> target = torch.zeros(1, 10, 10, dtype=torch.bool)
        >>> target[:, :5] = True
        >>> suite = SaliencySuite()
        >>> suite.update(target, target)
        >>> {name: round(value.item(), 2) for name, value in suite.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
        {'s_measure': 1.0, 'mae': 0.0, 'e_max': 1.01, 'e_mean': 1.01, 'e_adaptive': 1.01,
         'f_max': 1.0, 'f_mean': 1.0, 'f_adaptive': 1.0}
    """

    plot_upper_bound = None
    curve = (ADAPTIVE + 1,)
    values = (("suite_s", ()), ("suite_mae", ()), ("suite_e", curve), ("suite_f", curve), ("suite_weighted_f", ()))

    def __init__(self, weighted_f: bool = False, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(normalize, **kwargs)
        self.weighted_f = weighted_f

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        moments = region_moments(preds, target)
        whole = pooled(moments)
        counts = threshold_counts(preds, target, (whole.count * whole.mean).sum(1) / whole.count.sum(1))
        weighted = weighted_f_scores(preds, target, 1.0) if self.weighted_f else torch.zeros_like(counts.pixels)
        return (*moments, *counts, weighted)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        moments, counts = Moments(*statistics[:3]), ThresholdCounts(*statistics[3:-1])
        whole = pooled(moments)
        object_error, other_error = (whole.count * whole.mean).unbind(1)
        return {
            "suite_s": structure_of(moments),
            "suite_mae": (whole.count[:, 0] - object_error + other_error) / counts.pixels,
            "suite_e": enhanced_alignment(counts),
            "suite_f": f_measures(counts, BETA2).f_measure,
            "suite_weighted_f": statistics[-1],
        }

    def compute(self) -> dict[str, Tensor]:
        """The scalars named above."""
        return self._named({name: self.mean(name) for name, _ in self.values})

    def image_values(self, preds: Any, target: Any) -> dict[str, Tensor]:
        """The same for each of B images, (B,) float64 each, without adding them; the maxima are then each image's own.

        Arguments and errors are those of `update`.
        """
        return self._named(self.per_image(preds, target))

    def _named(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {"s_measure": values["suite_s"], "mae": values["suite_mae"]}
        named |= summary("e", values["suite_e"]) | summary("f", values["suite_f"])
        return named | ({"weighted_f": values["suite_weighted_f"]} if self.weighted_f else {})
