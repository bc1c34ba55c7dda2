"""Masks, boxes and points that a method found on a photograph, beside the true ones: pictures of the size of a page.

Legend: K images of a group of H x W pixels, N masks or boxes of an image. Boxes are x0, y0, x1, y1 in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lightning_sal.pages.drawing import scaled
from lightning_sal.pages.html import data_uri
from lightning_sal.pages.map_pictures import FOUND, PHOTOGRAPH, SIDE, TRUTH, Pictures
from lightning_sal.pages.outlines import DARK, LIGHT, NO_MASK, THIN, colour
from lightning_sal.samples import ImageGroup, VisualPrompt

SMALL = 240  # pixels of the longer side of a mask that results keep
LABELS = 255  # most masks of an image there


def of_masks(
    group: ImageGroup,
    predicted: Sequence[Tensor] | None,
    prompts: Sequence[Sequence[object]] = (),
    at: slice = slice(None),
) -> Pictures:
    """Outlines of masks, boxes and points on the photographs.

    Args:
        group: The images with what is known of them.
        predicted: K tensors (N, H, W) bool; None where masks are not predicted.
        prompts: For each image what a segmenter is asked, of which boxes and points are drawn.
        at: Which of the K images.
    """
    pictures: Pictures = {}
    numbers = range(len(group.images))[at]
    for number in numbers:
        image, which = group.images[number], f" {number + 1}" * (len(numbers) > 1)
        truth, boxes = (None if each is None else each[number] for each in (group.masks, group.boxes))
        pictures[PHOTOGRAPH + which] = Image.fromarray(scaled(image, None, SIDE).numpy())
        if truth is not None or boxes is not None:
            known = [VisualPrompt(tuple(box.tolist())) for box in (() if boxes is None else boxes)]
            pictures[TRUTH + which] = _drawn(image, truth, known)
        masks = None if predicted is None else predicted[number]
        found = [each for each in (prompts[number] if prompts else ()) if isinstance(each, VisualPrompt)]
        if masks is not None or boxes is not None or found:
            nothing = NO_MASK if masks is not None else "no box found"
            empty = not found and (masks is None or not masks.any())
            pictures[FOUND + which + f": {nothing}" * empty] = _drawn(image, masks, found)
    return pictures


def small_masks(group: ImageGroup, predicted: Sequence[Tensor], number: int) -> dict[str, str]:
    """The true and the predicted masks of an image as small pictures, for pages that are made from results.

    Args:
        group: The images with what is known of them.
        predicted: K tensors (N, H, W) bool.
        number: Of the image.

    Returns:
        `truth` and `prediction`: a PNG each in base64; empty where there are no masks.
    """
    truth = None if group.masks is None else group.masks[number]
    return {"truth": "" if truth is None else _small(truth), "prediction": _small(predicted[number])}


def _small(masks: Tensor) -> str:
    """Masks (N, H, W), N >= 0, each in its colour, the first in front; a single one in white."""
    labels = torch.zeros(masks.shape[1:], dtype=torch.uint8)
    kept = masks[:LABELS].cpu()
    for index in reversed(range(len(kept))):
        labels[kept[index]] = index + 1
    picture = Image.fromarray(labels.numpy())
    paints = [(255, 255, 255)] if len(masks) == 1 else map(colour, range(len(kept)))
    picture.putpalette([value for paint in ((0, 0, 0), *paints) for value in paint])
    picture.thumbnail((SMALL, SMALL), Image.Resampling.NEAREST)
    return data_uri(picture, "PNG").partition(",")[2]


def _drawn(image: Tensor, masks: Tensor | None, prompts: Sequence[VisualPrompt]) -> Image.Image:
    """An image with masks, and boxes and points over them, each in its colour."""
    picture = Image.fromarray(scaled(image, masks, SIDE).numpy())
    scale = picture.width / image.shape[1]
    width, draw = max(2, round(max(picture.size) / THIN)), ImageDraw.Draw(picture)
    for number, prompt in reversed([*enumerate(prompts)]):
        if prompt.box is not None:
            x0, y0, x1, y1 = (scale * side for side in prompt.box)
            for paint, grown, thick in ((LIGHT, width, 1), (colour(number), width - 1, width), (DARK, -1, 1)):
                draw.rectangle((x0 - grown, y0 - grown, x1 + grown, y1 + grown), outline=paint, width=thick)
        for x, y in prompt.points:
            x, y = scale * x, scale * y
            for paint, radius in ((LIGHT, 2 * width), (colour(number), 2 * width - 1)):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=paint, outline=paint)
    return picture
