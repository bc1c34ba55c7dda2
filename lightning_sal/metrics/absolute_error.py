"""The mean absolute error of saliency maps as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics.functional.absolute_error import absolute_errors
from lightning_sal.metrics.functional.inputs import as_map_pair
from lightning_sal.metrics.images import map_scores


class MeanAbsoluteError(Metric):
    r"""Mean absolute error of saliency maps, averaged over the pixels of an image and then over all images.

    .. math:: \text{MAE} = \frac{1}{N} \sum_{n=1}^{N} \frac{1}{H_n W_n} \sum_{i,j} |x_{n,ij} - y_{n,ij}|

    As used for saliency since Perazzi et al. 2012 (Saliency filters); unlike `torchmetrics.MeanAbsoluteError` each
    image counts alike, whatever its size. `update` takes maps and ground truths as (B, H, W), or as lists of (H, W)
    whose sizes may differ from image to image; `compute` gives a float64 scalar, NaN if no rank has seen an image.

    Args:
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import MeanAbsoluteError
        >>> metric = MeanAbsoluteError()
        >>> metric.update(torch.tensor([[[0.5, 0.0], [1.0, 0.25]]]), torch.tensor([[[1, 0], [1, 0]]]))
        >>> metric.compute()
        tensor(0.1875, dtype=torch.float64)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    # Named apart from those of other metrics: a MetricCollection merges metrics whose states look alike.
    absolute_error_sum: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("absolute_error_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> None:
        """Add images; nothing is added where one of them is refused.

        Args:
            preds: (B, H, W) or B tensors of (H, W): bool, or numbers in [0, 1].
            target: Likewise, each as large as its map; True where > 0.5.

        Raises:
            ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.
        """
        scores = map_scores(lambda *pair: absolute_errors(*as_map_pair(*pair)), preds, target)
        self.absolute_error_sum += scores.sum()
        self.total += len(scores)

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.absolute_error_sum / self.total

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot one value or several, by default what `compute` gives; returns figure and axes."""
        return self._plot(val, ax)
