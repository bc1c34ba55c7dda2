"""The pointing games as torchmetrics metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_sal.metrics.base import ImageMean, of_images
from lightning_sal.metrics.functional.localisation import energy_pointing_game, pointing_game


class Localisation(ImageMean):
    """Mean over attribution maps of how well each finds its mask.

    Args:
        kwargs: Those of `torchmetrics.Metric`.
    """

    @abstractmethod
    def scores(self, maps: Tensor, target: Tensor) -> Tensor:
        """The score of each map, (B,), of maps and masks (B, H, W)."""

    def update(self, maps: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> None:
        """Add images; nothing is added where one of them is refused.

        Args:
            maps: (B, H, W) or B tensors of (H, W): attribution maps, any finite numbers.
            target: Likewise, each as large as its map: bool, or numbers in [0, 1], True where > 0.5.

        Raises:
            ValueError: What the function of the same name refuses; the message names the sample.
        """
        (scores,) = of_images(lambda maps, target: (self.scores(maps.double(), target),), self.device, maps, target)
        ((name, _),) = self.values
        self.add({name: scores})

    def compute(self) -> Tensor:
        """The mean over all images."""
        ((name, _),) = self.values
        return self.mean(name)


class EnergyPointingGame(Localisation):
    """The share of an attribution map's mass that lies inside a mask, averaged over all images of all ranks.

    See `functional.energy_pointing_game`: only what is positive has mass, a map without mass scores 0, an empty mask is
    refused. `update` takes maps and masks as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image;
    `compute` gives a float64 scalar in [0, 1], NaN if no rank has seen an image. A uniform map reaches the share of the
    image that the mask covers.

    Args:
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import EnergyPointingGame
        >>> metric = EnergyPointingGame()
        >>> metric.update([torch.tensor([[3.0, 1.0, -2.0]])], [torch.tensor([[1, 0, 1]])])
        >>> metric.compute()
        tensor(0.7500, dtype=torch.float64)
    """

    values = (("mass_inside", ()),)

    def scores(self, maps: Tensor, target: Tensor) -> Tensor:
        return energy_pointing_game(maps, target)


class PointingGame(Localisation):
    """How often the largest value of an attribution map lies in a mask, over all images of all ranks.

    See `functional.pointing_game`: of several largest values the first counts, row by row; a map without a positive value
    misses. `update` takes maps and masks as (B, H, W), or as lists of (H, W) whose sizes may differ from image to image;
    `compute` gives a float64 scalar in [0, 1], NaN if no rank has seen an image.

    Args:
        tolerance: Pixels that may lie between the largest value and the mask, >= 0; the first pointing game has 15.
        kwargs: Those of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from lightning_sal.metrics import PointingGame
        >>> metric = PointingGame()
        >>> metric.update(torch.tensor([[[0.1, 0.9]], [[0.8, 0.2]]]), torch.tensor([[[0, 1]], [[0, 1]]]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    values = (("pointed_at", ()),)

    def __init__(self, tolerance: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tolerance = tolerance

    def scores(self, maps: Tensor, target: Tensor) -> Tensor:
        return pointing_game(maps, target, self.tolerance)
