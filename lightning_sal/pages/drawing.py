"""Panels for people: image, truth, prediction and words, and galleries of panels.

Legend: K images of a group, N masks of an image, H x W pixels. Images are uint8 RGB with channels last, masks boolean
and True inside the object. Mask number i has one colour everywhere: around the object, and behind the i-th expression of
a response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_sal.pages.outlines import NO_MASK, Colour, colour, overlay
from lightning_sal.tasks import answer_tags
from lightning_sal.tasks.blocks import answer_on_a_line, tags_of

PAPER, INK, MUTED, RULE = (255, 255, 255), (32, 36, 44), (112, 120, 134), (222, 225, 231)
TAG = (46, 92, 170)
MARGIN, GAP = 16, 8
TEXT_SIZE, LINE = 13, 19
TEXT_WIDTH, MAX_LINES = 320, 26
# Tags, line ends, white space, words; long words in parts, each of which fits on a line.
TOKEN = re.compile(r"</?\w{1,20}>|\n|[^\S\n]+|[^\s<]{1,24}|<")


def panel(
    images: Sequence[Tensor],
    truth: Sequence[Tensor] | None,
    predicted: Sequence[Tensor] | None,
    text: str,
    *,
    title: str = "",
    size: int = 224,
) -> Image.Image:
    """One response: a row an image with the image, the true and the predicted masks over it, and beside them the words.

    Args:
        images: K tensors (H, W, 3) uint8; sizes may differ. With K = 0 there are the words alone.
        truth: K tensors (N, H, W) bool; None leaves the column out.
        predicted: K tensors (N, H, W) bool; None or empty leaves the column out.
        text: The whole response.
        title: A line or more above.
        size: Longest side of an image in pixels. Larger ones are scaled down to it, smaller ones up by the largest
            whole factor that keeps within it.
    """
    named = [("image", [None] * len(images)), ("truth", truth), ("predicted", predicted)]
    columns = [(name, masks) for name, masks in named if masks and images]
    rows = []
    for row, image in enumerate(images):
        drawn = (scaled(image, masks[row], size) for _, masks in columns)
        rows.append([Image.fromarray(part.numpy()) for part in drawn])
    image_width = len(columns) * (size + GAP)
    heading = _wrapped(title, image_width + TEXT_WIDTH) if title else []
    top = MARGIN + len(heading) * LINE + (GAP if heading else 0)
    words = _wrapped(answer_on_a_line(text), TEXT_WIDTH)
    if absent := _absent(text, predicted or ()):
        words += [[], *_wrapped(f"{NO_MASK}: {', '.join(absent)}", TEXT_WIDTH)]
    height = max(sum(row[0].height + GAP for row in rows), len(words) * LINE)
    page = Image.new("RGB", (2 * MARGIN + image_width + GAP + TEXT_WIDTH, top + LINE + height + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, heading, (MARGIN, MARGIN), 0, bold=True)
    lefts = [MARGIN + at * (size + GAP) for at in range(len(columns))]
    for left, name in zip([*lefts, MARGIN + image_width + GAP], [*(name for name, _ in columns), "words"], strict=True):
        draw.text((left, top), name, MUTED, _font(TEXT_SIZE - 2))
    y = top + LINE
    for row in rows:
        for left, part in zip(lefts, row, strict=True):
            page.paste(part, (left, y))
        y += row[0].height + GAP
    _write(draw, words, (MARGIN + image_width + GAP, top + LINE), max((len(m) for m in predicted or ()), default=0))
    return page


def gallery(panels: Sequence[Image.Image], title: str = "") -> Image.Image:
    """Panels below each other, with a title and a rule between neighbours."""
    width = max((part.width for part in panels), default=TEXT_WIDTH + 2 * MARGIN)
    heading = _wrapped(title, width - 2 * MARGIN, size=TEXT_SIZE + 4) if title else []
    top = MARGIN + len(heading) * (LINE + 4) if heading else 0
    page = Image.new("RGB", (width, top + sum(part.height for part in panels) or MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, heading, (MARGIN, MARGIN), 0, bold=True, size=TEXT_SIZE + 4)
    y = top
    for number, part in enumerate(panels):
        page.paste(part, (0, y))
        if number or heading:
            draw.line((MARGIN, y, width - MARGIN, y), RULE)
        y += part.height
    return page


def _absent(text: str, predicted: Sequence[Tensor]) -> list[str]:
    """The expressions of a response that have no mask on any of the images; none where there are no predicted masks."""
    names: dict[int, str] = {}
    for token, _, number in _tokens(text):
        if number is not None:
            names[number] = names.get(number, "") + token
    # Where only the union of the masks was kept, it is that of every expression
    found = [any(masks[min(number, len(masks) - 1)].any() for masks in predicted if len(masks)) for number in names]
    return [" ".join(name.split()) for name, lit in zip(names.values(), found, strict=True) if predicted and not lit]


def scaled(image: Tensor, masks: Tensor | None, size: int) -> Tensor:
    """An image at its size on a page with the masks over it; scaled first, so that outlines stay crisp.

    Args:
        image: (H, W, 3) uint8.
        masks: (N, H, W) bool; None leaves the image as it is.
        size: Longest side in pixels. Larger images are scaled down to it, smaller ones up by the largest whole factor that
            keeps within it.
    """
    longest = max(image.shape[:2])
    if longest > size:
        height, width = (max(1, round(side * size / longest)) for side in image.shape[:2])
        shrunk = Image.fromarray(image.cpu().numpy()).resize((width, height), Image.Resampling.LANCZOS)
        image = torch.frombuffer(bytearray(shrunk.tobytes()), dtype=torch.uint8).view(height, width, 3)
    else:
        factor = size // longest
        image = image.cpu().repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    if masks is None:
        return image
    if len(masks):
        masks = interpolate(masks[None].float(), image.shape[:2], mode="nearest-exact")[0] > 0
    else:
        masks = masks.new_zeros(0, *image.shape[:2])
    return overlay(image, masks)


@dataclass(frozen=True, slots=True)
class _Word:
    """A piece of text on one line; `expression` is the number of the expression that it is part of, or None."""

    text: str
    width: float
    tag: bool = False
    expression: int | None = None


def _tokens(text: str) -> Iterator[tuple[str, bool, int | None]]:
    """Tags, words and white space of a response, each with whether it is a tag and its number of expression.

    Expressions are counted from the last beginning of an answer block: reasoning may quote their tags.
    """
    answers, opening = tags_of("answer")[0], set(tags_of(*answer_tags())[::2])
    number, inside, answering = -1, False, False
    for token in TOKEN.findall(text):
        tag = token[0] == "<" and token[-1] == ">"
        if token == answers:
            number, answering = -1, True
        if tag:
            inside = answering and token in opening
            number += inside
        yield token, tag, number if inside and not tag else None


def _wrapped(text: str, width: float, *, size: int = TEXT_SIZE) -> list[list[_Word]]:
    """Lines of at most `width` pixels; of too many, those in the middle give way to an ellipsis."""
    font = _font(size)
    lines: list[list[_Word]] = [[]]
    x = 0.0
    for token, tag, expression in _tokens(text):
        if token == "\n":
            lines.append([])
            x = 0.0
            continue
        piece = " " if token.isspace() else token
        length = font.getlength(piece)
        if x and x + length > width:
            lines.append([])
            x = 0.0
        if x or piece != " ":
            lines[-1].append(_Word(piece, length, tag, expression))
            x += length
    if len(lines) > MAX_LINES:
        ellipsis = [_Word("...", font.getlength("..."))]
        lines = [*lines[: MAX_LINES // 2], ellipsis, *lines[-MAX_LINES // 2 + 1 :]]
    return lines


def _write(
    draw: ImageDraw.ImageDraw,
    lines: list[list[_Word]],
    at: tuple[int, int],
    masks: int,
    *,
    bold: bool = False,
    size: int = TEXT_SIZE,
) -> None:
    """Write wrapped lines; expressions lie on a pale shade of the colour of their mask, of which there are `masks`."""
    font, line = _font(size), LINE + size - TEXT_SIZE
    for number, words in enumerate(lines):
        x, y = float(at[0]), at[1] + number * line
        for word in words:
            if word.expression is not None:
                shade = _pale(colour(min(word.expression, masks - 1))) if masks else RULE
                draw.rectangle((x, y, x + word.width, y + line - 3), shade)
            fill = TAG if word.tag else INK
            draw.text((x, y), word.text, fill, font, stroke_width=0.4 if bold or word.tag else 0)
            x += word.width


def _pale(strong: Colour) -> Colour:
    r, g, b = ((channel + 2 * 255) // 3 for channel in strong)
    return r, g, b


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
