"""The small policy that answers in boxes and points: `tiny-vqa` with a tokenizer in which a number is one token."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_sal.tasks.blocks import BLOCKS, tags_of
from lightning_sal.tiny.finding import FINDING, find_group
from lightning_sal.tiny.policy import (
    LAYERS,
    ROLES,
    build_processor,
    learn_words,
    random_model,
    take_over,
    tokenizer_of,
)
from lightning_sal.tiny.scenes import COLOURS, SHAPES, SIZE

LOOK = "look"  # key of the sentence that asks for blocks of the tag {tag}
INSTRUCTIONS = {
    "perception": "Find. Answer.",
    "detection": "Find. Answer.",
    "counting": "Count. Answer.",
    LOOK: "Use <{tag}>.",
    "perception without reasoning": "Answer.",
    "detection without reasoning": "Answer.",
    "counting without reasoning": "Answer.",
}
_LAYERS = 5
_TAGS = tags_of(*BLOCKS, LOOK)
_PIECES = ('[{"bbox_2d": [', '], "point_2d": [', ']}, {"bbox_2d": [', "]}]", "[]", ", ")
_NUMBERS = tuple(map(str, range(SIZE + 1)))


@cache
def _learnt() -> Any:
    """Vocabulary and merges out of the words of questions and of reasoning."""
    groups = [find_group(0, task, i) for task in FINDING for i in range(200)]
    corpus = [(group.response or "").partition(tags_of("answer")[0])[0] for group in groups]
    for tag in _TAGS:
        corpus = [text.replace(tag, "\n") for text in corpus]  # the words around are not one word
    corpus += [group.question for group in groups]
    words = [*INSTRUCTIONS.values(), *(f"{c} {s}" for c in COLOURS for s in SHAPES), *ROLES]
    return learn_words([*corpus, *words * 20])


def build_number_tokenizer() -> Any:
    """A byte-level BPE `Qwen2Tokenizer` to which each number from 0 to `SIZE` that stands alone is a token, and so are the
    parts of an answer around the numbers; any Unicode text round-trips."""
    from tokenizers import AddedToken

    tokenizer = tokenizer_of(_learnt())
    tokenizer.add_tokens([AddedToken(piece, special=False, normalized=False) for piece in (*_TAGS, *_PIECES)])
    numbers = [AddedToken(n, special=False, normalized=False, single_word=True) for n in _NUMBERS]
    tokenizer.add_tokens(numbers)
    return tokenizer


def perception_scratch() -> tuple[Any, Any, dict[str, str]]:
    """Model, processor and instructions of the small policy for boxes and points before any training of its own.

    All weights are those of `tiny-vqa`, which looks for what a question names, but the rows of tokens that it lacks, and two
    more layers of language, which begin by changing nothing. A word starts as the mean of what `tiny-vqa` spells it by, a
    number n as waves of n, so that near numbers are alike.
    """
    tokenizer = build_number_tokenizer()
    model = random_model(tokenizer, layers=_LAYERS)
    for layer in model.model.language_model.layers[LAYERS:]:
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.zeros_(last.weight)
    known = take_over(model, tokenizer, "tiny-vqa", but=frozenset((*_PIECES, *_TAGS, *_NUMBERS)))
    numbers = tokenizer.convert_tokens_to_ids(list(_NUMBERS))
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows[numbers] = number_waves(len(_NUMBERS), rows.shape[1]) * known.std()
    return model, build_processor(tokenizer), INSTRUCTIONS


def number_waves(count: int, width: int) -> Tensor:
    """(count, width) rows of mean square 1: sines and cosines of n at `width` / 2 wave lengths from 4 `count` down to 4."""
    lengths = 4 * count ** torch.linspace(1, 0, width // 2)
    angles = 2 * math.pi * torch.arange(count)[:, None] / lengths
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)
