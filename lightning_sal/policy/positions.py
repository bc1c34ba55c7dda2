"""M-RoPE positions of prompts: time, height and width of each token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mrope_positions(visual: Tensor, lengths: Sequence[int], grids: Tensor, merge: int) -> Tensor:
    """Positions of Qwen2-VL (Wang et al. 2024, arXiv:2409.12191, section 2.1), and of Qwen2.5-VL and Qwen3-VL, for images.

    A word has one position for all three, one more than the largest before it. The tokens of an image that begins at
    position p have (p, p + row, p + column).

    Args:
        visual: (P, L) bool, True on visual tokens; padding is on the left.
        lengths: Tokens of each prompt.
        grids: (images, 3), patches of each image in time (1), height and width, in the order of the prompts.
        merge: Patches of a side of a visual token's square.

    Returns:
        (3, P, L) integers, 0 on padding.
    """
    count, width = visual.shape
    positions = torch.zeros(3, count, width, dtype=torch.long)
    images = iter([(time, height // merge, across // merge) for time, height, across in grids.tolist()])
    for row, length in enumerate(lengths):
        at, position = width - length, 0
        where = visual[row].nonzero()[:, 0].tolist()
        while where:
            words = where[0] - at
            positions[:, row, at : where[0]] = position + torch.arange(words)
            time, height, across = next(images)
            place = torch.cartesian_prod(torch.arange(time), torch.arange(height), torch.arange(across)).view(-1, 3)
            at, position = where[0] + len(place), position + words
            positions[:, row, where[0] : at] = position + place.T
            where, position = where[len(place) :], position + max(time, height, across)
        positions[:, row, at:] = position + torch.arange(width - at)
    return positions
