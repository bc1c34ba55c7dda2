"""The mean absolute error of saliency maps as a torchmetrics metric."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.metrics.base import MapMetric
from lightning_sal.metrics.functional.absolute_error import absolute_errors


class MeanAbsoluteError(MapMetric):
    r"""Mean absolute error of saliency maps, averaged over the pixels of an image and then over all images.

    .. math:: \text{MAE} = \frac{1}{N} \sum_{n=1}^{N} \frac{1}{H_n W_n} \sum_{i,j} |x_{n,ij} - y_{n,ij}|

    As used for saliency since Perazzi et al. 2012 (Saliency filters); unlike `torchmetrics.MeanAbsoluteError` each
    image counts alike, whatever its size. `update` takes maps and ground truths as (B, H, W), or as lists of (H, W)
    whose sizes may differ from image to image; `compute` gives a float64 scalar, NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
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
    values = (("absolute_error", ()),)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (absolute_errors(preds, target),)

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return {"absolute_error": statistics[0]}

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.mean("absolute_error")
