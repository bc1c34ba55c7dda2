"""What the tiny models of all families share: a tokenizer out of the scenes' words, weights whose logits differ, saving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lightning_sal.tiny.policy import BRIEF, INSTRUCTIONS, QUESTION, ROLES, TAGS, learn_words
from lightning_sal.tiny.scenes import COLOURS, SHAPES

WIDTH = 32  # of the hidden states of language and vision
VISION = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2}
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
UNUSED = 5  # rows of the output layer beyond the tokenizer's last id, as published models have them
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def words() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Vocabulary and merges of a byte-level BPE, in which any text can be written."""
    texts = [*INSTRUCTIONS.values(), *ROLES, *TAGS, *(f" {colour} {shape}" for colour in COLOURS for shape in SHAPES)]
    learnt = learn_words(texts * 2)
    return learnt["vocab"], tuple((one, two) for one, two in learnt["merges"])


def byte_level(special: Sequence[str], *, end: str, pad: str, named: Mapping[str, str] | None = None) -> Any:
    """A byte-level BPE of transformers' general class.

    Args:
        special: Its special tokens.
        end: The token that ends a turn.
        pad: The token that fills up.
        named: Special tokens that the processor asks the tokenizer for, by the name of the attribute.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab, merges = words()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=pad, padding_side="left", **_extra(special, named)
    )


def qwen_words(make: Any, special: Sequence[str], named: Mapping[str, str] | None = None) -> Any:
    """A tokenizer of Qwen's kind, of one of transformers' classes for it."""
    vocab, merges = words()
    return make(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        **_extra(["<|im_start|>", *special], named),
    )


def _extra(special: Sequence[str], named: Mapping[str, str] | None) -> dict[str, Any]:
    return {"extra_special_tokens": list(special), "model_specific_special_tokens": dict(named or {})}


def ids_of(tokenizer: Any, **tokens: str) -> dict[str, int]:
    """The ids of tokens, by the names that they come under."""
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}


def text_of(tokenizer: Any, **own: Any) -> dict[str, Any]:
    """Settings of the language part, with what differs in this family."""
    ends = ids_of(tokenizer, eos_token_id=tokenizer.eos_token, pad_token_id=tokenizer.pad_token)
    return {"vocab_size": len(tokenizer) + UNUSED, "bos_token_id": None, **ends, **TEXT, **own}


@torch.no_grad()
def save(folder: Path, make: Any, config: Any, processor: Any, ends: Sequence[str] = ()) -> None:
    """Write a model with random weights, its processor and short instructions.

    Args:
        folder: Where to.
        make: The class of the model.
        config: Its settings.
        processor: Its processor.
        ends: Tokens that end a response; by default the one that ends the tokenizer's turn.
    """
    tokenizer = processor.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # so that logits have a standard deviation of about 1
                parameter.normal_(std=(parameter.numel() / len(parameter)) ** -0.5)
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
    generation = model.generation_config
    generation.eos_token_id = tokenizer.convert_tokens_to_ids(list(ends) or [tokenizer.eos_token])
    generation.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "instructions.json").write_text(json.dumps(INSTRUCTIONS | QUESTION | BRIEF))
