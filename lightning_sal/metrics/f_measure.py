"""The F-measure and its curves as torchmetrics metrics."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_sal.formulas.thresholds import BETA2, ThresholdCounts, f_measures, f_of
from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.enhanced_alignment import summary
from lightning_sal.metrics.functional.thresholds import ADAPTIVE, LEVELS, threshold_counts
from lightning_sal.metrics.functional.weighted_f_measure import weighted_f_scores

Maximum = Literal["curve", "precision_recall"]


class FMeasure(MapMetric):
    r"""F-measure of saliency maps (Achanta et al. 2009) over all images of all ranks.

    The measure at each threshold is that of `lightning_sal.metrics.functional.f_measure_curves`, averaged over images.
    `compute` gives float64 scalars: `f_max` and `f_mean`, the maximum and the mean of that averaged curve over 256
    thresholds, and `f_adaptive`, at twice the mean of each map. `curves` gives precision, recall and F over thresholds,
    and `plot_curves` draws them. `update` takes maps and ground truths as (B, H, W), or as lists of (H, W) whose sizes
    may differ from image to image. NaN if no rank has seen an image.

    Args:
        beta2: Weight of precision, > 0; 0.3 is the field's.
        maximum: What `f_max` is the maximum of. `curve`: of the F-measures averaged over images, as in most toolboxes
            today; `precision_recall`: of the F-measure of precision and recall averaged over images, as in older ones.
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import FMeasure
        >>> metric = FMeasure()
        >>> metric.update(torch.tensor([[[1.0, 0.2, 0.6, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]]))
        >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
        {'f_max': 0.812, 'f_mean': 0.669, 'f_adaptive': 0.812}
    """

    values = (("precision", (ADAPTIVE + 1,)), ("recall", (ADAPTIVE + 1,)), ("f_measure", (ADAPTIVE + 1,)))

    def __init__(
        self, beta2: float = BETA2, maximum: Maximum = "curve", normalize: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(normalize, **kwargs)
        if maximum not in ("curve", "precision_recall"):
            raise ValueError(f"maximum must be 'curve' or 'precision_recall', not {maximum!r}")
        self.beta2, self.maximum = beta2, maximum

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return threshold_counts(preds, target)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return f_measures(ThresholdCounts(*statistics), self.beta2)._asdict()

    def compute(self) -> dict[str, Tensor]:
        """`f_max`, `f_mean` and `f_adaptive`."""
        values = summary("f", self.mean("f_measure"))
        if self.maximum == "precision_recall":
            curves = self.curves()
            values["f_max"] = f_of(curves["precision"], curves["recall"], self.beta2).max()
        return values

    def curves(self) -> dict[str, Tensor]:
        """`threshold`, `precision`, `recall` and `f_measure`, (256,) float64, means over this rank's images."""
        threshold = torch.arange(LEVELS, dtype=torch.float64, device=self.device) / (LEVELS - 1)
        return {"threshold": threshold} | {name: self.mean(name)[:ADAPTIVE] for name, _ in self.values}

    def plot_curves(self, axes: Any = None) -> Any:
        """Draw precision over recall, and F over thresholds, on two matplotlib axes; returns figure and axes.

        Raises:
            ModuleNotFoundError: If matplotlib is not installed.
        """
        import matplotlib.pyplot as plt

        if axes is None:
            axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")[1]
        curves = {name: value.cpu().numpy() for name, value in self.curves().items()}
        axes[0].plot(curves["recall"], curves["precision"])
        axes[0].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
        axes[1].plot(curves["threshold"], curves["f_measure"])
        axes[1].set(xlabel="threshold", ylabel="F-measure", xlim=(0, 1), ylim=(0, 1))
        return axes[0].figure, axes


class WeightedFMeasure(MapMetric):
    """Weighted F-measure (Margolin et al. 2014), averaged over all images of all ranks.

    The measure of an image is that of `lightning_sal.metrics.functional.weighted_f_measure`. `update` takes maps and
    ground truths as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image; `compute` gives a
    float64 scalar, NaN if no rank has seen an image.

    Args:
        beta2: Weight of precision, > 0.
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import WeightedFMeasure
        >>> target = torch.zeros(1, 9, 9)
        >>> target[:, 3:6, 3:6] = 1
        >>> metric = WeightedFMeasure()
        >>> metric.update(torch.cat([target, 1 - target]), torch.cat([target, target]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    values = (("weighted_f", ()),)

    def __init__(self, beta2: float = 1.0, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(normalize, **kwargs)
        self.beta2 = beta2

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (weighted_f_scores(preds, target, self.beta2),)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return {"weighted_f": statistics[0]}

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.mean("weighted_f")
