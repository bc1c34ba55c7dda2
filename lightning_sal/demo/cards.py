"""What the page shows of photographs and answers: HTML in which every foreign word is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer import answer_html
from lightning_sal.pages.html import data_uri
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import answer_tags
from lightning_sal.tasks.blocks import BLOCKS, tags_of

UNFINISHED = r"<[/\w]*$"  # where a text ends within a tag


def strip(pictures: Mapping[str, Image.Image]) -> str:
    """Small pictures of files in a row."""
    names = {path: html.escape(Path(path).name) for path in pictures}
    images = (
        f'<img src="{data_uri(picture)}" alt="{names[path]}" title="{names[path]}">'
        for path, picture in pictures.items()
    )
    return f'<div class="strip">{"".join(images)}</div>'


def unfinished(group: ImageGroup, texts: Mapping[str, str]) -> str:
    """What the models have said of a group so far, a card each."""
    tag = re.compile("|".join([*map(re.escape, tags_of(*BLOCKS, *answer_tags())), UNFINISHED]))
    words = {name: f'<p class="so-far">{html.escape(tag.sub(" ", text))}</p>' for name, text in texts.items()}
    return _cards(group, words)


def finished(group: ImageGroup, predictions: Mapping[str, Prediction]) -> str:
    """The answers of the models to a group, a card each."""
    return _cards(group, {name: answer_html(prediction) for name, prediction in predictions.items()})


def _cards(group: ImageGroup, contents: Mapping[str, str]) -> str:
    """A card a model, under the name of the photograph; behind its own where there are several."""
    photograph = group.key if len(group.paths) == 1 else f"{len(group.paths)} photographs"
    heads = {name: html.escape(photograph if len(contents) == 1 else f"{name} · {photograph}") for name in contents}
    kind = "card group" if len(group.paths) > 1 else "card"
    cards = (f'<section class="{kind}"><h2>{heads[name]}</h2>{content}</section>' for name, content in contents.items())
    return "".join(cards)
