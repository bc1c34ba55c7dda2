"""How much of what a response rests on lies where it should: the share of its map inside the regions that matter.

Legend: B responses, K images of a group of H x W pixels, E labels of an answer, N regions of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sal.inference.responses import MAPS, MASKS, Response
from lightning_sal.metrics.functional import alignment_weights
from lightning_sal.metrics.functional.mask_iou import pairwise_iou
from lightning_sal.rewards.regions import Annotated, Regions
from lightning_sal.rewards.terms import RewardTerm, Scores, malformed
from lightning_sal.tasks import get_task

_LEAST_OVERLAP = 0.1  # IoU from which on a mask and an instance are a pair, as IASM has it


@dataclass(frozen=True, slots=True)
class _Share:
    """A share of mass, and what there is to say of it; None where none can be computed."""

    value: float | None
    reason: str | None = None


class Alignment(RewardTerm):
    """The share of the attribution map's mass that lies in the boxes that matter, or in the ground-truth mask.

    Mass is the map after the ReLU, resized bilinearly to the image; of several images it is counted together. A region has
    one map, the sum of those of all labels. Where each label names an instance of its own, it has a map of its own, which
    is compared with the instance that its mask is paired with (at the largest total IoU, from 0.1 on), 0 where there is
    none; the value is the mean over labels.

    It is 0 for a response that does not keep the format, or whose map has no mass, and unknown where the sample has no
    region or the map is not finite.

    Args:
        regions: What the map is compared with; null takes the annotated ones. Another is a control, e.g. `Elsewhere`.
        name: Of the term.
    """

    needs = frozenset({MAPS, MASKS})
    bounds = (0.0, 1.0)

    def __init__(self, regions: Regions | None = None, name: str = "alignment") -> None:
        super().__init__()
        self.regions: Regions = Annotated() if regions is None else regions
        self.name = name

    def forward(self, responses: Sequence[Response]) -> Scores:
        """Score B responses in [0, 1]."""
        grids = {id(response.group): _Grid(self.regions(response.group)) for response in responses}
        shares = [_share(response, grids[id(response.group)]) for response in responses]
        return Scores(
            torch.tensor([share.value or 0.0 for share in shares]),
            tuple(share.reason for share in shares),
            known=torch.tensor([share.value is not None for share in shares]),
        )


class _Grid:
    """How much of each cell of a map lies in the regions of a group; what was computed once is kept.

    Args:
        regions: K boolean tensors (N, H, W).
    """

    def __init__(self, regions: tuple[Tensor, ...]) -> None:
        self.regions = regions
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


def _share(response: Response, grid: _Grid) -> _Share:
    if not any(bool(each.any()) for each in grid.regions):
        return _Share(None, "unknown: the sample has no region that a map could lie in")
    if response.answer.reason is not None:
        return _Share(0.0, malformed(response))
    if not response.maps:
        return _Share(0.0, "no map: there is no reasoning to look through, or no answer")
    if not all(bool(each.isfinite().all()) for maps in response.maps for each in maps):
        return _Share(None, "unknown: the attribution map is not finite")
    if get_task(response.group.task).masks_per_image is None:
        pairs = list(zip(response.maps, _instances(response, grid.regions[0]), strict=True))
    else:
        pairs = [(tuple(torch.stack(parts).sum(0) for parts in zip(*response.maps, strict=True)), 0)]
    whole = [grid.mass(maps, None) for maps, _ in pairs]
    inside = [0.0 if region is None else grid.mass(maps, region) for maps, region in pairs]
    shares = [part / total if total else 0.0 for part, total in zip(inside, whole, strict=True)]
    reason = None if all(whole) else "a map has no mass: nothing in the image speaks for what is answered"
    return _Share(min(sum(shares) / len(shares), 1.0), reason)


def _instances(response: Response, regions: Tensor) -> list[int | None]:
    """The instance (I, H, W) that each label's mask is paired with."""
    from scipy.optimize import linear_sum_assignment

    masks = (response.prompt_masks or ())[0]
    overlap = pairwise_iou(masks.to(regions.device), regions).cpu()
    found: list[int | None] = [None] * len(masks)
    for row, column in zip(*linear_sum_assignment(overlap.numpy(), maximize=True), strict=True):
        if overlap[row, column] >= _LEAST_OVERLAP:
            found[row] = int(column)
    return found
