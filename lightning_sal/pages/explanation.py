"""Where the words of an answer came from, as a part of its page: point at a word, and its map lies over the photograph.

CSS alone does that, as for masks. The photographs are a custom property of the fragment and the map of a word one of the
word, so that each is there once, and no rule counts the words. Photographs are grey here, so that all colour is the map's. A
map is a picture of a pixel a cell, which the browser enlarges and smooths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from PIL import Image
from torch import Tensor

from lightning_sal.inference.responses import Prediction
from lightning_sal.inference.words import Part
from lightning_sal.pages.html import data_uri, escaped
from lightning_sal.pages.overlay import Scale, colours, layer
from lightning_sal.tasks import answer_tags
from lightning_sal.tasks.blocks import BLOCKS, tags_of

STYLE = """
.answer summary { cursor: pointer; font-weight: 600 }
.looks { position: relative; display: grid; gap: .6rem; margin-top: .6rem;
  --width: min(100%, calc(22rem * var(--aspect))) }
.looks .screen, .looks .word:is(:hover, :focus)::after { width: var(--width); aspect-ratio: var(--aspect);
  background-repeat: no-repeat; background-size: var(--sizes); background-position: var(--places) }
.looks .screen { background-image: var(--photographs); print-color-adjust: exact; -webkit-print-color-adjust: exact }
.looks .words { max-height: 14rem; overflow: auto; padding: .2rem; white-space: pre-line }
.looks .word { cursor: default; border-radius: .2rem }
.looks .word:is(:hover, :focus) { outline: 2px solid }
.looks .word:is(:hover, :focus)::after { content: ""; position: absolute; top: 0; left: 0; pointer-events: none;
  background-image: var(--map) }
.looks .parts { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 8rem), 1fr)) }
.looks figure { margin: 0; min-width: 0; --width: 100% }
.looks figure .screen { background-image: var(--map), var(--photographs); background-size: var(--sizes), var(--sizes);
  background-position: var(--places), var(--places) }
.looks h3 { margin: .5rem 0 -.3rem; font-size: .9em; font-weight: 600 }
.looks h3 small { font-weight: 400 }
.looks figcaption, .looks .scale { font-size: .8em; line-height: 1.35 }
.looks .scale i { display: block; height: .6rem; max-width: 16rem; print-color-adjust: exact;
  -webkit-print-color-adjust: exact }
.looks .scale b { display: flex; justify-content: space-between; max-width: 16rem; font-weight: 400 }
"""
NOTE = (
    "Each colour (cividis) says how much that part of the photograph added to the logits of the words, from 0 on; what "
    "speaks against them is not shown. Maps are coarser than the photograph, and smoothed in being drawn."
)


def explanation_html(prediction: Prediction, longest_side: int) -> str:
    """The explanation of a prediction as a fragment of HTML, closed until it is wanted; empty where there is none.

    Args:
        prediction: All its texts are escaped.
        longest_side: Pixels of the longer side of a photograph.

    Returns:
        One line.
    """
    found = prediction.explanation
    if found is None or not (found.words or found.labels):
        return ""
    scale = _scale(found.words, "the largest value of a word of this response")
    parts = [
        '<div class="screen"></div>',
        "<h3>Words <small>Point at one, tap it, or reach it by the tab key.</small></h3>",
        f'<p class="words">{"".join(_words(prediction.text, found.words, scale))}</p>{_legend(scale)}',
        _figures("Sentences", found.sentences, "the largest value of a sentence of this response"),
        _figures(
            "Answer", found.labels, "the largest value of an answer of this response, through the reasoning if any"
        ),
        f'<p class="scale">{NOTE}</p>',
    ]
    return (
        '<details class="origins"><summary>Where each word came from</summary>'
        f'<div class="looks" style="{_photographs(prediction.group.images, longest_side)}">{"".join(parts)}</div></details>'
    )


def _photographs(images: Sequence[Tensor], longest_side: int) -> str:
    """The images in a row, of one height, as values of custom properties."""
    addresses = []
    for image in images:
        picture = Image.fromarray(image.cpu().numpy()).convert("L")
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        addresses.append(f"url({data_uri(picture, quality=88)})")
    aspects = [image.shape[1] / image.shape[0] for image in images]
    whole = sum(aspects)
    starts = [0.0, *accumulate(aspects)]
    # A position of p per cent has p per cent of the image at p per cent of the room, so it counts what is left beside it
    places = [
        100 * start / (whole - each) if whole > each else 0.0 for start, each in zip(starts, aspects, strict=False)
    ]
    sizes = ",".join(f"{100 * each / whole:.3f}% 100%" for each in aspects)
    at = ",".join(f"{place:.3f}% 0" for place in places)
    return f"--photographs:{','.join(addresses)};--sizes:{sizes};--places:{at};--aspect:{whole:.4f}"


def _words(text: str, words: Sequence[Part], scale: Scale) -> Iterator[str]:
    """A response whose words have their maps; its tags give way to spaces."""
    tag = re.compile("|".join(map(re.escape, tags_of(*BLOCKS, *answer_tags()))))
    last = 0
    for word in words:
        start, end = word.place
        yield escaped(tag.sub(" ", text[last:start]))
        yield f'<span class="word" tabindex="0" style="{_map(word, scale)}">{escaped(word.text)}</span>'
        last = end
    yield escaped(tag.sub(" ", text[last:]))


def _figures(title: str, parts: Sequence[Part], words: str) -> str:
    """Parts with their maps over the photographs, and the scale that they have in common; empty where there are none."""
    if not parts:
        return ""
    scale = _scale(parts, words)
    figures = (
        f'<figure><div class="screen" role="img" aria-label="map of: {name}" style="{_map(part, scale)}"></div>'
        f"<figcaption>{name}</figcaption></figure>"
        for part, name in ((part, escaped(part.text)) for part in parts)
    )
    return f'<h3>{title}</h3><div class="parts">{"".join(figures)}</div>{_legend(scale)}'


def _scale(parts: Sequence[Part], words: str) -> Scale:
    return Scale.of((each for part in parts for each in part.maps), words)


def _map(part: Part, scale: Scale) -> str:
    addresses = (f"url({data_uri(layer(each, scale), 'PNG', optimize=True)})" for each in part.maps)
    return f"--map:{','.join(addresses)}"


def _legend(scale: Scale) -> str:
    """The colours over black and over white, and the ends of the scale."""
    stops = ",".join(
        f"rgb({r:.0f} {g:.0f} {b:.0f}/{opacity:.2f})" for r, g, b, opacity in colours(torch.linspace(0, 1, 17)).tolist()
    )
    bar = f"linear-gradient(90deg,{stops}),linear-gradient(#000 50%,#fff 50%)"
    return (
        f'<p class="scale"><i style="background:{bar}"></i><b><span>0</span><span>{scale}</span></b>{scale.words}</p>'
    )
