"""IoU, Dice and their like over thresholds, and areas under curves, as a torchmetrics metric."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.formulas.overlaps import Areas, Overlaps, overlaps, summarised
from lightning_sal.formulas.thresholds import ThresholdCounts
from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.overlaps import curve_areas_of
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, LEVELS, threshold_counts


class OverlapMeasures(MapMetric):
    r"""IoU, Dice, balanced error rate and specificity of saliency maps, and areas under PR and ROC, over all images.

    The measures at each threshold are those of `lightning_sal.metrics.functional.overlap_curves`, averaged over images
    of all ranks. `compute` gives float64 scalars: of each averaged curve over 256 thresholds its best value and its mean,
    `iou_max`, `iou_mean`, `dice_max`, `dice_mean`, `ber_min`, `ber_mean`, `specificity_max`, `specificity_mean`; those at
    twice the mean of each map, `iou_adaptive`, `dice_adaptive`, `ber_adaptive`, `specificity_adaptive`; and `auc_pr` and
    `auc_roc`, means over images of `lightning_sal.metrics.functional.curve_areas`. `curves` gives the four over
    thresholds. `update` takes maps and ground truths as (B, H, W), or as lists of (H, W) whose sizes may differ from image
    to image. NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import OverlapMeasures
        >>> metric = OverlapMeasures()
        >>> metric.update(torch.tensor([[[1.0, 0.2, 0.6, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]]))
        >>> found = metric.compute()
        >>> {name: round(found[name].item(), 3) for name in ("iou_max", "dice_max", "ber_min", "auc_pr", "auc_roc")}
        {'iou_max': 0.667, 'dice_max': 0.8, 'ber_min': 0.25, 'auc_pr': 0.833, 'auc_roc': 0.75}
    """

    higher_is_better = None
    values = (
        *((f"curve_{name}", (ADAPTIVE + 1,)) for name in Overlaps._fields),
        *((name, ()) for name in Areas._fields),
    )

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return threshold_counts(preds, target)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        counts = ThresholdCounts(*statistics)
        curves = {f"curve_{name}": values for name, values in overlaps(counts)._asdict().items()}
        return curves | curve_areas_of(counts)._asdict()

    def compute(self) -> dict[str, Tensor]:
        """The scalars named above."""
        curves = Overlaps(*(self.mean(f"curve_{name}") for name in Overlaps._fields))
        return summarised(curves) | {name: self.mean(name) for name in Areas._fields}

    def curves(self) -> dict[str, Tensor]:
        """`threshold`, `iou`, `dice`, `ber` and `specificity`, (256,) float64, means over this rank's images."""
        threshold = torch.arange(LEVELS, dtype=torch.float64, device=self.device) / (LEVELS - 1)
        means = {name: self.mean(f"curve_{name}")[:ADAPTIVE] for name in Overlaps._fields}
        return {"threshold": threshold} | means
