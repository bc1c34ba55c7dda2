"""What the metrics of images share: fixed-size sums; images come as a batch, or one by one in sizes of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics.functional.inputs import as_map_pair, min_max


class ImageMean(Metric):
    """Means over all images of all ranks, of values that each image has.

    The states are a sum of each of `values` and the number of images. Sums are exact, see `exact_parts`: the same to the
    last bit in whatever order images come and however they are spread over ranks. NaN if no rank has seen an image.

    Args:
        kwargs: Those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    # Names and shapes of the values. Names differ from metric to metric, since a MetricCollection merges metrics whose
    # states look alike.
    values: ClassVar[tuple[tuple[str, tuple[int, ...]], ...]]
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, shape in self.values:
            self.add_sum(name, shape)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add_sum(self, name: str, shape: tuple[int, ...]) -> None:
        """Make the state of a value."""
        self.add_state(f"{name}_sum", torch.zeros(2, *shape, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add B images: of each value (B, ...)."""
        for name, value in values.items():
            parts = exact_parts(value.double()).sum(1)
            setattr(self, f"{name}_sum", getattr(self, f"{name}_sum") + parts)
        self.total = self.total + len(next(iter(values.values())))

    def summed(self, name: str) -> Tensor:
        """The sum of a value over all images."""
        return getattr(self, f"{name}_sum").sum(0)

    def mean(self, name: str) -> Tensor:
        """The mean of a value over all images."""
        return self.summed(name) / self.total

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several, by default what `compute` gives; returns figure and axes."""
        return self._plot(val, ax)


class MapMetric(ImageMean):
    """Means over saliency maps.

    Args:
        normalize: Whether each map is stretched to [0, 1] first, (x - min) / (max - min), as some toolboxes do; a
            constant map stays as it is.
        kwargs: Those of `torchmetrics.Metric`.
    """

    def __init__(self, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normalize = normalize

    @abstractmethod
    def statistics(self, preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """What is counted in checked maps (B, H, W) and masks (B, H, W) bool: tensors (B, ...)."""

    @abstractmethod
    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        """The values of B images by what was counted in them, each (B, ...)."""

    def update(self, preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> None:
        """Add images; nothing is added where one of them is refused.

        Args:
            preds: (B, H, W) or B tensors of (H, W): bool, or numbers in [0, 1].
            target: Likewise, each as large as its map; True where > 0.5.

        Raises:
            ValueError: If shapes differ, or a value is NaN or outside [0, 1]; the message names the sample.
        """
        self.add(self.per_image(preds, target))

    def per_image(self, preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        """The values of each image, (B, ...) float64, without adding them; arguments are those of `update`."""

        def checked(preds: Tensor, target: Tensor) -> tuple[Tensor, ...]:
            preds, target = as_map_pair(preds, target)
            return self.statistics(min_max(preds) if self.normalize else preds, target)

        return self.scores(*of_images(checked, self.device, preds, target))


class MapMean(MapMetric):
    """The mean over saliency maps of one value, which a subclass names alone in `values` and gives as its statistic.

    Args:
        normalize: Whether each map is stretched to [0, 1] first.
        kwargs: Those of `torchmetrics.Metric`.
    """

    def scores(self, *statistics: Tensor) -> dict[str, Tensor]:
        return {self.values[0][0]: statistics[0]}

    def compute(self) -> Tensor:
        """The mean over all images."""
        return self.mean(self.values[0][0])


class InstanceMean(ImageMean):
    """Means over images, of values that their instances have together.

    Args:
        kwargs: Those of `torchmetrics.Metric`.
    """

    names: tuple[str, ...]

    @abstractmethod
    def of_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """The values of an image, (number of `names`,) float64, of instances (M, H, W) and (I, H, W)."""

    def update(self, preds: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> None:
        """Add one image or several; nothing is added where one of them is refused.

        Args:
            preds: (M, H, W), or a list of such, one an image: bool, or numbers in [0, 1], True where > 0.5; M >= 0.
            target: (I, H, W), or a list of such, likewise; I >= 0.

        Raises:
            ValueError: If sizes differ, or a value is NaN or outside [0, 1]; the message names image and instance.
        """
        preds, target = placed(self.device, preds, target)
        if isinstance(preds, Tensor) and isinstance(target, Tensor):
            preds, target = [preds], [target]
        if len(preds) or len(target):
            (found,) = one_by_one(lambda pred, true: (self.of_image(pred, true)[None],), preds, target)
            self.add(dict(zip(self.names, found.to(self.device).unbind(1), strict=True)))


def exact_parts(values: Tensor) -> Tensor:
    """Numbers as two parts that add up exactly: multiples of 2^-26, and of the rest multiples of 2^-52.

    A float64 holds any multiple of 2^-26 below 2^27, and any of 2^-52 below 2, so sums of either part round nowhere, up to
    10^8 values in [0, 1], and do not depend on the order. What is finer than 2^-52 is rounded; whole numbers are kept.

    Args:
        values: Float64 of any shape.

    Returns:
        (2, ...), which add up to the values.
    """
    coarse = (values * 2.0**26).round() / 2.0**26
    return torch.stack([coarse, ((values - coarse) * 2.0**52).round() / 2.0**52])


def placed(device: torch.device, *inputs: Any) -> list[Any]:
    """What a metric is given, each a tensor, a sequence of tensors or None, on the device of the metric."""

    def on(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    return [[on(each) for each in value] if isinstance(value, (list, tuple)) else on(value) for value in inputs]


def of_images(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    device: torch.device,
    preds: Sequence[Tensor] | Tensor,
    target: Sequence[Tensor] | Tensor,
) -> tuple[Tensor, ...]:
    """What a function of (B, H, W) gives for B >= 0 images, which come as a batch or as lists of (H, W), on a device.

    Raises:
        ValueError: What the function raises, of lists with the number of the image; or if they are not as many.
    """
    preds, target = placed(device, preds, target)
    if not len(preds) and not len(target):
        preds = target = torch.zeros(0, 1, 1, device=device)
    if isinstance(preds, Tensor) and isinstance(target, Tensor):
        return function(preds, target)
    return one_by_one(lambda pred, one: function(pred[None], one[None]), preds, target)


def one_by_one(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    preds: Sequence[Tensor] | Tensor,
    target: Sequence[Tensor] | Tensor,
) -> tuple[Tensor, ...]:
    """What a function gives for each of N > 0 images, as one: its tensors (1, ...) become (N, ...).

    Raises:
        ValueError: What the function raises, with the number of the image; or if images and targets are not as many.
    """
    if len(preds) != len(target):
        raise ValueError(f"{len(preds)} preds and {len(target)} targets: there must be one target for each")
    found = []
    for index, (pred, one) in enumerate(zip(preds, target, strict=True)):
        try:
            found.append(function(pred, one))
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from None
    return tuple(torch.cat(column) for column in zip(*found, strict=True))
