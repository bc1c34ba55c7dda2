"""How much of what a response rests on lies where it should: the share of its map inside the regions that matter.

Legend: B responses, K images of a group of H x W pixels, E labels of an answer, N regions of an image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.inference.responses import MAPS, MASKS, Response
from lightning_sal.metrics.functional import alignment_weights, pointing_game
from lightning_sal.metrics.functional.mask_iou import pairwise_iou
from lightning_sal.rewards.regions import Annotated, Regions
from lightning_sal.rewards.terms import RewardTerm, Scores, malformed
from lightning_sal.tasks import get_task
from lightning_sal.transfer import read

_LEAST_OVERLAP = 0.1  # IoU from which on a mask and an instance are a pair, as IASM has it


@dataclass(frozen=True, slots=True)
class _Value:
    """A value, and what there is to say of it; None where none can be computed."""

    value: float | None
    reason: str | None = None


class MapTerm(RewardTerm):
    """What attribution maps are worth, beside the regions in which they should lie; a subclass says what is measured.

    A region has one map, the sum of those of all labels. Where each label names an instance of its own, it has a map of
    its own, which is compared with the instance that its mask is paired with (at the largest total IoU, from 0.1 on), and
    is worth 0 where there is none; the value is the mean over labels.

    It is 0 for a response that does not keep the format, or whose map has no mass, and unknown where the sample has no
    region or the map is not finite.

    Args:
        regions: What maps are compared with; null takes the annotated ones. Another is a control, e.g. `Elsewhere`.
        name: Of the term; null takes that of the class.
    """

    needs = frozenset({MAPS, MASKS})
    bounds = (0.0, 1.0)

    def __init__(self, regions: Regions | None = None, name: str | None = None) -> None:
        super().__init__()
        self.regions: Regions = Annotated() if regions is None else regions
        self.name = type(self).name if name is None else name

    @abstractmethod
    def measure(self, grid: Grid, maps: Sequence[Tensor], region: int) -> float:
        """The value of the maps of the K images, which have mass, in a region of each."""

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1]."""
        groups = {id(response.group): response.group for response in responses}
        grids = dict(zip(groups, grids_of(list(map(self.regions, groups.values()))), strict=True))
        found = [self._value(response, grids[id(response.group)]) for response in responses]
        return Scores(
            torch.tensor([each.value or 0.0 for each in found]),
            tuple(each.reason for each in found),
            known=torch.tensor([each.value is not None for each in found]),
        )

    def _value(self, response: Response, grid: Grid) -> _Value:
        if grid.empty:
            return _Value(None, "unknown: the sample has no region that a map could lie in")
        if response.answer.reason is not None:
            return _Value(0.0, malformed(response))
        if len(response.answer.labels_at) != len(response.answer.labels):
            raise ValueError(
                f"{response.group.key}: the task {response.group.task} does not say where its labels stand in a response, "
                "so they have no maps: give its answers `labels_at` and `reasoning_at`"
            )
        if not response.maps:
            return _Value(0.0, "no map: there is no reasoning to look through, or no answer")
        if not all(bool(each.isfinite().all()) for maps in response.maps for each in maps):
            return _Value(None, "unknown: the attribution map is not finite")
        if get_task(response.group.task).masks_per_image is None:
            pairs = list(zip(response.maps, _instances(response, grid.regions[0]), strict=True))
        else:
            pairs = [(tuple(torch.stack(parts).sum(0) for parts in zip(*response.maps, strict=True)), 0)]
        mass = [grid.mass(maps, None) > 0 for maps, _ in pairs]
        values = [
            self.measure(grid, maps, region) if has and region is not None else 0.0
            for has, (maps, region) in zip(mass, pairs, strict=True)
        ]
        reason = None if all(mass) else "a map has no mass: nothing in the image speaks for what is answered"
        return _Value(sum(values) / len(values), reason)


class Alignment(MapTerm):
    """The share of the attribution map's mass that lies in the boxes that matter, or in the ground-truth mask.

    Mass is the map after the ReLU, resized bilinearly to the image; that of several images is counted together.
    """

    name = "alignment"

    def measure(self, grid: Grid, maps: Sequence[Tensor], region: int) -> float:
        return min(grid.mass(maps, region) / grid.mass(maps, None), 1.0)


class Pointing(MapTerm):
    """Pointing game: 1 where the largest value of the attribution map, resized bilinearly, lies in the region, else 0.

    Of several images the one with the largest value counts.
    """

    name = "pointing"

    def measure(self, grid: Grid, maps: Sequence[Tensor], region: int) -> float:
        image = max(range(len(maps)), key=lambda number: float(maps[number].max()))
        mask = grid.regions[image][region].cpu()
        large = F.interpolate(maps[image].double().clamp(min=0)[None, None], size=mask.shape, mode="bilinear")
        return float(pointing_game(large[0], mask[None]))


class Grid:
    """How much of each cell of a map lies in the regions of a group; what was computed once is kept.

    Args:
        regions: K boolean tensors (N, H, W).
        empty: Whether none has a pixel.
    """

    def __init__(self, regions: tuple[Tensor, ...], empty: bool) -> None:
        self.regions, self.empty = regions, empty
        self._weights: dict[tuple[int, int | None, tuple[int, ...]], Tensor] = {}

    def mass(self, maps: Sequence[Tensor], region: int | None) -> float:
        """The mass of the maps of the K images that lies in a region of each; None for the whole images."""
        return sum(
            float((each.double().clamp(min=0) * self._of(image, region, each.shape)).sum())
            for image, each in enumerate(maps)
        )

    def _of(self, image: int, region: int | None, cells: torch.Size) -> Tensor:
        key = (image, region, tuple(cells))
        if key not in self._weights:
            masks = self.regions[image]
            mask = torch.ones(masks.shape[1:]) if region is None else masks[region]
            self._weights[key] = alignment_weights(mask, *cells).cpu()
        return self._weights[key]


def grids_of(regions: Sequence[tuple[Tensor, ...]]) -> list[Grid]:
    """Those of several groups."""
    filled = read(*(torch.stack([each.any() for each in of_group]).any() for of_group in regions))
    return [Grid(of_group, not some) for of_group, some in zip(regions, filled, strict=True)]


def _instances(response: Response, regions: Tensor) -> list[int | None]:
    """The instance (I, H, W) that each label's mask is paired with."""
    from scipy.optimize import linear_sum_assignment

    assert response.prompt_masks is not None  # MASKS is needed
    (masks,) = response.prompt_masks
    overlap = pairwise_iou(masks.to(regions.device), regions).cpu()
    found: list[int | None] = [None] * len(masks)
    for row, column in zip(*linear_sum_assignment(overlap.numpy(), maximize=True), strict=True):
        if overlap[row, column] >= _LEAST_OVERLAP:
            found[row] = int(column)
    return found
