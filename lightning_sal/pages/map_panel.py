"""A panel of the maps of one response: each label of the answer over each image, on one scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lightning_sal.pages.overlay import INK, PAPER, Scale, legend, lines, tint

SIDE, COLUMNS, GAP = 176, 4, 8  # pixels of an image, images of a row, pixels between
TEXT, LINE = 12, 17  # pixels of a letter and of a line


def map_panel(
    images: Sequence[Tensor], maps: Sequence[Sequence[Tensor]], labels: Sequence[str], title: str
) -> Image.Image:
    """The maps of the labels of a response, with the scale that they have in common.

    Args:
        images: K tensors (H, W, 3) uint8; sizes may differ.
        maps: For each label the maps of the K images, before the ReLU.
        labels: What stands below the maps of each.
        title: Above; alone where there are no maps.

    Raises:
        ValueError: If a value is no number.
    """
    scale = Scale.of((each for label in maps for each in label), "the largest value of an answer of this response")
    cells = [
        _cell(_fitted(image), values, scale, label)
        for label, each in zip(labels, maps, strict=True)
        for image, values in zip(images, each, strict=True)
    ]
    width = max(2, min(len(cells), COLUMNS)) * (SIDE + GAP) + GAP
    parts = [_written(title, width - 2 * GAP)]
    parts += [_row(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
    parts += [legend(2 * SIDE, scale)] if cells else []
    page = Image.new("RGB", (width, GAP + sum(part.height + GAP for part in parts)), PAPER)
    y = GAP
    for part in parts:
        page.paste(part, (GAP, y))
        y += part.height + GAP
    return page


def _row(cells: Sequence[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (len(cells) * (SIDE + GAP), max(cell.height for cell in cells)), PAPER)
    for column, cell in enumerate(cells):
        row.paste(cell, (column * (SIDE + GAP), 0))
    return row


def _cell(image: Tensor, values: Tensor, scale: Scale, label: str) -> Image.Image:
    drawn, caption = Image.fromarray(tint(image, values, scale).numpy()), _written(label, SIDE)
    cell = Image.new("RGB", (SIDE, drawn.height + caption.height), PAPER)
    cell.paste(drawn)
    cell.paste(caption, (0, drawn.height))
    return cell


def _fitted(image: Tensor) -> Tensor:
    """An image whose longer side is that of a panel's."""
    picture = Image.fromarray(image.cpu().numpy())
    scale = SIDE / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    return torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling.LANCZOS)))


def _written(words: str, width: int) -> Image.Image:
    font = ImageFont.load_default(TEXT)
    wrapped = lines(words, width, font)
    page = Image.new("RGB", (width, LINE * len(wrapped) + 1), PAPER)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(wrapped):
        draw.text((0, number * LINE), line, INK, font)
    return page
