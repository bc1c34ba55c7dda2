"""Attribution maps over photographs: one colour map, one scale, and a legend that names both.

The colour map is cividis, whose lightness rises evenly with the value and which looks alike with and without a deficiency
of colour vision (Nunez, Anderton and Renslow, 2018, arXiv:1712.01662). A map is shown after the ReLU, linearly from 0 to the
top of its scale. Small values let the photograph through and 0 leaves it as it is, so the legend shows each colour twice:
over black and over white.

Legend: an image has H x W pixels, a map R x C cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

# Cividis at 0, 1/16, ..., 1, as matplotlib has it to 8 bits; between them colours are interpolated linearly
CIVIDIS = (
    (0, 34, 78), (0, 46, 106), (26, 56, 111), (50, 67, 109), (67, 78, 108), (83, 90, 109), (97, 101, 111),
    (111, 112, 115), (125, 124, 120), (140, 136, 120), (155, 148, 118), (171, 160, 114), (188, 174, 108), (205, 187, 99),
    (222, 201, 88), (240, 216, 70), (254, 232, 56),
)  # fmt: skip
OPACITY = 0.85  # of the upper half of the scale; below it falls linearly to 0
LEVELS = 64  # colours of a layer
NARROWEST = 80  # pixels of a picture with a legend
PAPER, INK = (255, 255, 255), (32, 36, 44)


@dataclass(frozen=True, slots=True)
class Scale:
    """What the colours of maps mean.

    Args:
        top: Value of the last colour, >= 0; the first is that of 0.
        words: What the top is, for the legend.
        unit: Of the values.
    """

    top: float
    words: str = "the largest value of this map"
    unit: str = "logit"

    @classmethod
    def of(cls, maps: Iterable[Tensor], words: str = "the largest value of this map") -> Self:
        """The scale up to the largest value of some maps; 0 where none has any above."""
        return cls(max((float(each.max()) for each in maps if each.numel()), default=0.0), words).checked()

    def checked(self) -> Self:
        """The same scale, from 0.

        Raises:
            ValueError: If its top is no number.
        """
        if not np.isfinite(self.top):
            raise ValueError(f"a map up to {self.top} cannot be drawn: the policy computes numbers that are not finite")
        return type(self)(max(0.0, self.top), self.words, self.unit)

    def share(self, values: Tensor) -> Tensor:
        """Values as shares of the top, in [0, 1] and float32 on the CPU.

        Raises:
            ValueError: If one is no number.
        """
        values = values.detach().float().cpu()
        if not values.isfinite().all():
            raise ValueError("a map with values that are not finite cannot be drawn")
        return (values / self.top).clamp(0, 1) if self.top > 0 else torch.zeros_like(values)

    def __str__(self) -> str:
        return f"{self.top:.3g} {self.unit}"


def colours(share: Tensor) -> Tensor:
    """(..., 4) red, green, blue in [0, 255] and opacity in [0, 1] of shares of a scale."""
    table = torch.tensor(CIVIDIS, dtype=torch.float32)
    at = share * (len(table) - 1)
    below = at.floor().long().clamp(max=len(table) - 2)
    rgb = torch.lerp(table[below], table[below + 1], (at - below)[..., None])
    return torch.cat([rgb, (OPACITY * (2 * share).clamp(max=1))[..., None]], dim=-1)


def tint(image: Tensor, values: Tensor, scale: Scale) -> Tensor:
    """An image under a map, which is smoothed bilinearly to its pixels.

    Args:
        image: (H, W, 3) uint8.
        values: (R, C), before the ReLU.
        scale: Of the colours.

    Returns:
        (H, W, 3) uint8 on the CPU.
    """
    smooth = interpolate(scale.share(values)[None, None], image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    painted = colours(smooth)
    return torch.lerp(image.cpu().float(), painted[..., :3], painted[..., 3:]).round().to(torch.uint8)


def layer(values: Tensor, scale: Scale) -> Image.Image:
    """A map as a small transparent picture, a pixel a cell, for pages, which enlarge and smooth it."""
    levels = (scale.share(values) * (LEVELS - 1)).round()
    table = colours(torch.arange(LEVELS) / (LEVELS - 1))
    picture = Image.fromarray(levels.to(torch.uint8).numpy())
    picture.putpalette(table[:, :3].round().to(torch.uint8).flatten().tolist())
    picture.info["transparency"] = bytes((255 * table[:, 3]).round().to(torch.uint8).tolist())
    return picture


def overlay(image: Tensor, values: Tensor, scale: Scale | None = None) -> Image.Image:
    """An image under a map, and below it the legend.

    Args:
        image: (H, W, 3) uint8.
        values: (R, C), before the ReLU.
        scale: Of the colours; None takes that of the map itself, which cannot be compared with another's.

    Raises:
        ValueError: If a value is no number.
    """
    scale = Scale.of([values]) if scale is None else scale.checked()
    picture = Image.fromarray(tint(image, values, scale).numpy())
    below = legend(picture.width, scale)
    page = Image.new("RGB", (below.width, picture.height + below.height), PAPER)
    page.paste(picture)
    page.paste(below, (0, picture.height))
    return page


def legend(width: int, scale: Scale) -> Image.Image:
    """The colours of a scale over black and over white, its ends, and what they are.

    Args:
        width: In pixels; a narrower one than `NARROWEST` becomes as wide as that.
        scale: Of the colours.
    """
    width = max(width, NARROWEST)
    size = max(10, width // 36)
    font, line, half = ImageFont.load_default(size), round(1.4 * size), max(4, size // 2)
    words = lines(scale.words, width - 4, font)
    page = Image.new("RGB", (width, 2 * half + (1 + len(words)) * line + 4), PAPER)
    ground = torch.zeros(2 * half, width, 3, dtype=torch.uint8)
    ground[half:] = 255
    ramp = Scale(1.0)
    page.paste(Image.fromarray(tint(ground, torch.linspace(0, 1, width)[None], ramp).numpy()))
    draw, top = ImageDraw.Draw(page), 2 * half + 1
    draw.text((2, top), "0", INK, font)
    draw.text((width - 2, top), str(scale), INK, font, anchor="ra")
    for number, part in enumerate(words, 1):
        draw.text((2, top + number * line), part, INK, font)
    return page


def lines(words: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, most: int = 8) -> list[str]:
    """Words in lines of about so many pixels; what is more than so many lines gives way to an ellipsis."""
    characters = int(width * len(words) / max(1.0, font.getlength(words)))
    return wrap(words, max(4, characters), max_lines=most, placeholder="...")
