"""The human correction effort as a torchmetrics metric."""

from __future__ import annotations

from torch import Tensor

from lightning_sal.metrics.base import MapMean
from lightning_sal.metrics.functional.human_correction import correction_efforts


class HumanCorrectionEffort(MapMean):
    """Human correction effort (Qin et al. 2022, arXiv:2203.03041), averaged over all images of all ranks.

    The effort of an image is that of `lightning_sal.metrics.functional.human_correction_effort`, a number of clicks, of
    which less is better. `update` takes maps and ground truths as (B, H, W), or as lists of (H, W) whose sizes may differ
    from image to image; `compute` gives a float64 scalar, NaN if no rank has seen an image.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import HumanCorrectionEffort
        >>> target = torch.zeros(1, 40, 40)
        >>> target[:, 5:35, 5:35] = 1
        >>> metric = HumanCorrectionEffort()
        >>> metric.update(torch.cat([target, 0 * target]), torch.cat([target, target]))
        >>> metric.compute()
        tensor(4.5000, dtype=torch.float64)
    """

    higher_is_better = False
    plot_upper_bound = None
    values = (("correction_effort", ()),)

    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        return (correction_efforts(preds, target),)
