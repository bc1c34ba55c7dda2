"""Where a response should look: the regions that an alignment is measured against, and controls in their place.

Legend: K images of a group of H x W pixels, N regions of an image.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from lightning_sal.metrics.functional import boxes_to_mask
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task


class Regions(Protocol):
    """Gives the regions of a group, one a label where the task has an instance for each, else one in all."""

    def __call__(self, group: ImageGroup) -> tuple[Tensor, ...]:
        """K boolean tensors (N, H, W)."""
        ...


class Annotated:
    """The ground-truth masks where the task has masks, else the union of the boxes of each image."""

    def __call__(self, group: ImageGroup) -> tuple[Tensor, ...]:
        """See `Regions`.

        Raises:
            ValueError: If the group has neither.
        """
        if get_task(group.task).masks_per_image != 0 and group.masks is not None:
            return group.masks
        if group.boxes is None:
            raise ValueError(
                f"{group.key}: alignment needs the boxes that matter (masks, for a task with masks) and this sample has "
                "none; give its boxes"
            )
        sizes = [image.shape[:2] for image in group.images]
        return tuple(boxes_to_mask(each.double(), *size)[None] for each, size in zip(group.boxes, sizes, strict=True))


class Elsewhere:
    """Control: the annotated regions, as large, moved by half of the picture down and across, round its edges."""

    def __call__(self, group: ImageGroup) -> tuple[Tensor, ...]:
        """See `Regions`."""
        return tuple(mask.roll((mask.shape[1] // 2, mask.shape[2] // 2), (1, 2)) for mask in Annotated()(group))


class Centred:
    """Control: a rectangle in the middle of the picture with its aspect, as large as the annotated region."""

    def __call__(self, group: ImageGroup) -> tuple[Tensor, ...]:
        """See `Regions`."""
        return tuple(map(_middles, Annotated()(group)))


def _middles(masks: Tensor) -> Tensor:
    """Centred rectangles, each of about as many pixels as one of the (N, H, W) masks."""
    rectangles, (height, width) = torch.zeros_like(masks), masks.shape[1:]
    for rectangle, share in zip(rectangles, masks.float().mean((1, 2)).tolist(), strict=True):
        rows, columns = round(height * math.sqrt(share)), round(width * math.sqrt(share))
        top, left = (height - rows) // 2, (width - columns) // 2
        rectangle[top : top + rows, left : left + columns] = True
    return rectangles
