"""Of all that SAM 3 finds for a phrase, the mask that is meant, at the size of its image.

Legend: N pairs of an image and a phrase, Q object queries, h x w the grid of SAM 3's masks, H x W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.transfer import moved, read

_THRESHOLD = 0.5  # of a pixel's probability, as in transformers' post-processing


def choose_masks(
    outputs: Any, instances: Sequence[bool], sizes: Sequence[tuple[int, int]], least: float | None, step: int
) -> list[Tensor]:
    """The mask of each of N pairs, to the pixel as the post-processing of transformers' `Sam3Processor` makes it.

    Args:
        outputs: What `Sam3Model` gave for N pairs.
        instances: For each whether one object is meant, that of the best score; else a region is.
        sizes: H, W of the image of each.
        least: A region is the union of the masks whose score exceeds it; None takes the mask of all that fits the phrase.
        step: Most masks that are resized at once, >= 1.

    Returns:
        N tensors (H, W) bool.
    """
    scores = outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid()  # (N, Q)
    best = scores.argmax(1, keepdim=True)
    # Which masks make a union, only the host can say: it waits once for all pairs
    unions = None if least is None or all(instances) else read(scores > least)[0]
    masks = []
    for row, (instance, size) in enumerate(zip(instances, sizes, strict=True)):
        if instance:
            grids = outputs.pred_masks[row].index_select(0, best[row])
        elif unions is None:
            grids = outputs.semantic_seg[row]
        else:
            grids = outputs.pred_masks[row].index_select(0, moved(unions[row].nonzero()[:, 0], best.device))
        masks.append(_union(grids.sigmoid(), size, step))
    return masks


def _union(grids: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """Where any of (n, h, w) probabilities, n >= 0, exceeds the threshold at the image's size: (H, W) bool."""
    union = torch.zeros(size, dtype=torch.bool, device=grids.device)
    for part in grids.split(step) if len(grids) else ():
        resized = F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0]
        union |= (resized > _THRESHOLD).any(0)
    return union
