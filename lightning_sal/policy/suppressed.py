"""The token ids that a policy never samples."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

# How families of transformers call the ids that stand for what is no text, in their config and on their processor
_PLACEHOLDER = re.compile(r"(image|video|audio|vision|img|fake|global|row|boi|eoi|boa|eoa)\w*_(id|ids|index)")
_TAG = re.compile(r"</?(think|answer)>")  # which some families have as special tokens, and responses are written in


def suppressed_ids(processor: Any, config: Any, eos: Collection[int]) -> Tensor:
    """The ids that are never sampled and have probability 0.

    They are the tokenizer's special tokens but those that end a response or are a tag of its form, what the model takes for
    an image, a video or a sound, and the rows of the output layer beyond the tokenizer's last id, which were never trained.

    Args:
        processor: Of the model.
        config: Of the model.
        eos: Ids that end a response.

    Returns:
        (V,) bool, True where an id is suppressed.
    """
    tokenizer = processor.tokenizer
    suppressed = torch.zeros(config.get_text_config().vocab_size, dtype=torch.bool)
    tags = {i for token, i in tokenizer.get_added_vocab().items() if _TAG.fullmatch(token)}
    silent = (set(tokenizer.all_special_ids) | placeholder_ids(processor, config)) - set(eos) - tags
    suppressed[[i for i in silent if i < len(suppressed)]] = True
    suppressed[len(tokenizer) :] = True
    return suppressed


def placeholder_ids(processor: Any, config: Any) -> set[int]:
    """The ids that stand for an image, a video or a sound in the input of a model, and that surround them."""
    found: set[int] = set()
    for place in (config.to_dict(), vars(processor)):
        for name, value in place.items():
            if _PLACEHOLDER.fullmatch(name):
                ids = value if isinstance(value, (list, tuple)) else [value]
                found |= {i for i in ids if isinstance(i, int) and i >= 0}
    return found
