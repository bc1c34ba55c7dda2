"""An answer as a web page shows it: images, outlines of the masks, the reasoning, and expressions in the outlines' colours.

The photograph is dimmed outside all masks. Pointing at an expression, or reaching it by the tab key, dims all but its mask.
CSS alone does that, so that a page needs no script, no network and nothing beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.explanation import STYLE as EXPLANATION_STYLE
from lightning_sal.pages.explanation import explanation_html
from lightning_sal.pages.html import data_uri, escaped
from lightning_sal.pages.outlines import DARK, DIM, LIGHT, NO_MASK, colour, outline, presence_note
from lightning_sal.tasks import SEMANTIC

LONGEST_SIDE = 480  # pixels of an image on the page
# The title of a step of the reasoning: a few capitalised words and a colon, at the start of a sentence
STEP = re.compile(r"(?:^|(?<=[.!?\n])\s)\s*((?:[A-Z]\w*)(?: \w+){0,6}):")

STYLE = """
.answer { font: 15px/1.55 system-ui, sans-serif; display: grid; gap: .8rem; align-content: start; overflow-wrap: anywhere }
.answer p { margin: 0 }
.answer .images { display: grid; gap: .5rem; align-content: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 9rem), 1fr)) }
.answer .image { position: relative; width: 100%; max-width: calc(24rem * var(--aspect)); margin: 0; border-radius: .5rem;
  overflow: hidden; align-self: start; justify-self: center }
.answer .image img { display: block; width: 100%; height: auto; margin: 0; transition: opacity .15s }
.answer .image :is(.mask, .shade) { position: absolute; inset: 0; height: 100%; pointer-events: none }
.answer .image .shade:not(.all) { opacity: 0 }
.answer .image figcaption { position: absolute; inset: auto 0 0; padding: .15rem .5rem; font-size: .8em; color: #fff;
  background: rgb(0 0 0 / .65) }
.answer .expressions { display: flex; flex-wrap: wrap; gap: .4rem }
.answer .expression { cursor: default; border-radius: .3rem; color: inherit; outline-offset: 1px;
  background: color-mix(in srgb, var(--colour) 26%, transparent); print-color-adjust: exact;
  -webkit-print-color-adjust: exact }
.answer .expression:is(:hover, :focus) { outline: 2px solid var(--colour) }
.answer .expressions .expression { padding: .1rem .6rem; border-left: .3rem solid var(--colour); font-weight: 600 }
.answer :is(.expression, .missing) small { font-weight: 400; opacity: .75 }
.answer .missing { padding: .1rem .6rem; border-left: .3rem dashed; font-weight: 600 }
.answer .think { white-space: pre-line }
.answer .think b { display: block; margin-top: .35rem; font-size: .8em; letter-spacing: .04em; opacity: .6 }
.answer .think .expression { padding: 0 .2em; box-decoration-break: clone; -webkit-box-decoration-break: clone }
.answer .confidence { font-size: .8em; opacity: .7; font-variant-numeric: tabular-nums }
.answer .confidence i { display: inline-block; width: 4rem; height: .4rem; margin-left: .5rem; border-radius: .2rem;
  background: linear-gradient(90deg, currentColor var(--confidence), color-mix(in srgb, currentColor 20%, transparent) 0);
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
.answer .malformed { border-left: .3rem solid #d33; padding-left: .6rem }
.answer pre { margin: 0; max-height: 16rem; overflow: auto; white-space: pre-wrap; font: .9em/1.45 ui-monospace, monospace }
@media print { .answer pre { max-height: none } }
.answer:has(.expression:is(:hover, :focus)) .image :is(.mask, .shade) { opacity: 0 }
"""


def answer_html(prediction: Prediction, *, style: bool = True, longest_side: int = LONGEST_SIDE) -> str:
    """One prediction as a fragment of HTML that needs nothing beside it.

    Args:
        prediction: A response, what it names, its masks, and its explanation if it has one. All its texts are escaped.
        style: Whether the fragment brings its style sheet; a page that holds many has it once, by `answer_style`.
        longest_side: Pixels of the longer side of an image on the page; smaller ones are not enlarged, their masks are.

    Returns:
        One line.
    """
    answer = prediction.answer
    drawn = prediction.drawn or tuple(torch.zeros(0, *image.shape[:2]) for image in prediction.group.images)
    found = [bool(sum(int(masks[number].any()) for masks in drawn)) for number in range(len(drawn[0]))]
    presence = [scores.tolist() for scores in prediction.presence or ()]  # of each image: a number an expression
    numbered: list[tuple[int, str]] = []
    expressions = []
    for number, words in enumerate(prediction.expressions):
        mask = min(number, len(found) - 1)  # where only the union of the masks was kept, all expressions light it
        if found and found[mask]:
            numbered.append((mask, words))
            expressions.append(_expression(mask, words))
        else:
            note = presence_note(scores[number] for scores in presence)
            expressions.append(_without_mask(words, NO_MASK + note if prediction.drawn else None))
    parts = [
        '<div class="images">',
        *(
            _figure(
                image, masks, longest_side, NO_MASK + presence_note(scores) if len(drawn) > 1 and any(found) else ""
            )
            for image, masks, scores in zip(prediction.group.images, drawn, presence or [[]] * len(drawn), strict=True)
        ),
        f'</div><p class="expressions">{"".join(expressions)}</p>',
    ]
    if prediction.reason is not None:
        parts.append(f'<p class="malformed">Malformed: {escaped(prediction.reason)}</p>')
        parts.append(f"<pre>{escaped(prediction.text)}</pre>")
    elif answer.reasoning:
        parts.append(f'<p class="think">{_reasoning(answer.reasoning, numbered)}</p>')
    parts.append(explanation_html(prediction, longest_side))
    if (confidence := prediction.confidence) is not None:
        parts.append(
            f'<p class="confidence">confidence {confidence:.2f}<i style="--confidence: {100 * confidence:.0f}%"></i></p>'
        )
    head = f"<style>{answer_style(len(prediction.expressions))}</style>" if style else ""
    return f'<article class="answer">{head}{"".join(parts)}</article>'


def answer_style(expressions: int) -> str:
    """The style sheet of answers with at most so many expressions, on one line."""
    lit = (
        f'.answer:has(.expression[data-mask="{i}"]:is(:hover, :focus)) .image [data-mask="{i}"]:is(.mask, .shade) '
        "{ opacity: 1 }"
        for i in range(expressions)
    )
    return " ".join((STYLE + EXPLANATION_STYLE + "".join(lit)).split())


def _figure(image: Tensor, masks: Tensor, longest_side: int, missing: str) -> str:
    """A photograph with its layers; `missing` is what it says where it has no mask."""
    height, width = image.shape[:2]
    photograph = Image.fromarray(image.cpu().numpy())
    photograph.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    scale = longest_side / max(height, width)  # up too: the page enlarges small images, and outlines are to stay thin
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    drawn = [
        interpolate(mask[None, None].float(), size, mode="bilinear", antialias=scale < 1)[0, 0] >= 0.5
        for mask in masks.cpu()
    ]
    layers = [f'<img class="photograph" alt="" src="{data_uri(photograph, quality=88)}">']
    if any(mask.any() for mask in drawn):
        layers.append(_layer("shade all", None if len(drawn) > 1 else 0, _shade(torch.stack(drawn).any(0))))
    if len(drawn) > 1:
        layers += [_layer("shade", number, _shade(mask)) for number, mask in enumerate(drawn)]
    layers += [_layer("mask", number, _outline(mask, number)) for number, mask in enumerate(drawn) if mask.any()]
    if missing and not masks.any():
        layers.append(f"<figcaption>{missing}</figcaption>")
    return f'<figure class="image" style="--aspect: {width / height:.3f}">{"".join(layers)}</figure>'


def _layer(kind: str, number: int | None, picture: Image.Image) -> str:
    of_mask = "" if number is None else f' data-mask="{number}"'
    return f'<img class="{kind}"{of_mask} alt="" src="{data_uri(picture, "PNG", optimize=True)}">'


def _outline(mask: Tensor, number: int) -> Image.Image:
    """The outline of a mask as a transparent picture, whose palette is what `outline` gives."""
    layer = Image.fromarray(outline(mask).numpy())
    layer.putpalette([0, 0, 0, *DARK, *colour(number), *LIGHT])
    layer.info["transparency"] = bytes((0, 255, 255, 255))
    return layer


def _shade(mask: Tensor) -> Image.Image:
    """What darkens a photograph outside a mask."""
    layer = Image.fromarray(mask.to(torch.uint8).numpy())
    layer.putpalette([0] * 6)
    layer.info["transparency"] = bytes((round(255 * (1 - DIM)), 0))
    return layer


def _expression(number: int, words: str) -> str:
    r, g, b = colour(number)
    return (
        f'<span class="expression" tabindex="0" data-mask="{number}" style="--colour: rgb({r} {g} {b})">'
        f"{_shown(words)}</span>"
    )


def _without_mask(words: str, missing: str | None) -> str:
    """An expression that lights nothing; `missing` is what is said of it, None where no segmenter was asked."""
    if missing is None:
        return f"<b>{escaped(words)}</b>"
    return f'<span class="missing">{_shown(words)} <small>{missing}</small></span>'


def _shown(words: str) -> str:
    return escaped(words).replace(SEMANTIC, f"<small>{SEMANTIC}</small>", 1)


def _reasoning(text: str, numbered: Sequence[tuple[int, str]]) -> str:
    """Reasoning with the titles of its steps set apart."""
    pieces = STEP.split(text)
    return "".join(
        f"<b>{escaped(piece)}</b>" if at % 2 else _marked(piece.strip(), numbered) for at, piece in enumerate(pieces)
    )


def _marked(text: str, numbered: Sequence[tuple[int, str]]) -> str:
    """Text in which the words of an expression, wherever they stand, are that expression."""
    named = [(number, " ".join(words.replace(SEMANTIC, "").split())) for number, words in numbered]
    numbers = {name.lower(): number for number, name in reversed(named) if name}
    if not numbers:
        return escaped(text)
    longest_first = sorted(numbers, key=len, reverse=True)
    pattern = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest_first)
    return "".join(
        _expression(numbers[" ".join(piece.lower().split())], piece) if at % 2 else escaped(piece)
        for at, piece in enumerate(re.split(rf"(?i)(?<!\w)({pattern})(?!\w)", text))
    )
