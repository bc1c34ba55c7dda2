"""Masks on a photograph: their outlines in colours, and everything else darker.

An object keeps the colours of the photograph, to the bit: its outline runs around it, and only the surroundings are
dimmed. A dark line within and a light one without set the outline off from any ground.

Legend: N masks of an image of H x W pixels, boolean and True inside the object.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

Colour = tuple[int, int, int]

NO_MASK = "no mask found"  # beside an expression for which the segmenter finds nothing
DIM = 0.5  # what is left of the brightness of the surroundings
THIN = 110  # an outline is one part in so many of the longer side of a picture, at least 2 pixels
DARK, LIGHT = (16, 18, 22), (245, 246, 248)
NOTHING, INNER, LINE, OUTER = range(4)  # of what `outline` gives


def presence_note(presence: Iterable[float]) -> str:
    """The highest of some presence scores, as it stands behind what it is about; empty where none is known."""
    known = [score for score in presence if not math.isnan(score)]
    return f" (presence {max(known):.2f})" if known else ""


def colour(index: int) -> Colour:
    """The colour of mask `index`: hues a golden section apart, so that any few of them differ."""
    r, g, b = colorsys.hsv_to_rgb((0.86 + 0.618034 * index) % 1, 0.85, 1)
    return round(255 * r), round(255 * g), round(255 * b)


def outline(mask: Tensor) -> Tensor:
    """What is drawn around a mask: `NOTHING`, the dark line `INNER`, the `LINE` in its colour, the light line `OUTER`.

    The border of the image is no outline.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) uint8 on the CPU.
    """
    width = max(2, round(max(mask.shape) / THIN))
    rim = max(1, width // 3)
    grown, drawn = mask.cpu(), torch.zeros(mask.shape, dtype=torch.uint8)
    for part, pixels in ((INNER, rim), (LINE, width), (OUTER, rim)):
        wider = _grown(grown, pixels)
        drawn[wider & ~grown] = part
        grown = wider
    return drawn


def dimmed(image: Tensor, masks: Tensor) -> Tensor:
    """An image that is darker outside all masks; where there is nothing in any of them it stays as it is.

    Args:
        image: (H, W, 3) uint8.
        masks: (N, H, W) bool.

    Returns:
        (H, W, 3) uint8 on the CPU, of its own.
    """
    result, union = image.cpu().clone(), masks.cpu().any(0)
    if union.any():
        result[~union] = (DIM * result[~union].float()).to(torch.uint8)
    return result


def overlay(image: Tensor, masks: Tensor) -> Tensor:
    """An image with each mask outlined in its colour and the surroundings dimmed; the first mask's outline lies in front.

    Args:
        image: (H, W, 3) uint8.
        masks: (N, H, W) bool, N >= 0, on any device.

    Returns:
        (H, W, 3) uint8, on the CPU.
    """
    result = dimmed(image, masks)
    for index in reversed(range(len(masks))):
        lines = outline(masks[index])
        for part, paint in ((INNER, DARK), (LINE, colour(index)), (OUTER, LIGHT)):
            result[lines == part] = torch.tensor(paint, dtype=torch.uint8)
    return result


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask with all that is no further from it than so many pixels along a row, a column or both."""
    wide = max_pool2d(mask[None].float(), (1, 2 * pixels + 1), stride=1, padding=(0, pixels))
    return max_pool2d(wide, (2 * pixels + 1, 1), stride=1, padding=(pixels, 0))[0] > 0
