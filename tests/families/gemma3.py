"""Gemma 3: image tokens see each other both ways, sliding windows, words of SentencePiece, `<bos>` by the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GemmaTokenizer,
)

from tests.families.base import VISION, ids_of, save, text_of

SIDE, TOKENS = 28, 4
ENDS = ("<eos>", "<end_of_turn>")
NAMED = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
TEMPLATE = (
    "<bos>{% set first = namespace(text='') %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{% set first.text = message['content'][0]['text'] + '\n\n' %}"
    "{% else %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ first.text }}{% set first.text = '' %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def characters(special: Sequence[str], named: Mapping[str, str]) -> Any:
    """A tokenizer in which each character that prints is a word, and each byte is one for what is left.

    Args:
        special: Its special tokens.
        named: Further ones, which the processor asks for by the name of the attribute.
    """
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *special, *named.values()]
    printed = ["▁", "\n", *map(chr, range(ord("!"), ord("~") + 1))]
    pieces = [*first, *(f"<0x{byte:02X}>" for byte in range(256)), *printed]
    return GemmaTokenizer(
        vocab={piece: place for place, piece in enumerate(pieces)},
        merges=[],
        add_bos_token=True,
        padding_side="left",
        extra_special_tokens=[*special, *named.values()],
        model_specific_special_tokens=dict(named),
    )


def build(folder: Path) -> None:
    tokenizer = characters(["<start_of_turn>", "<end_of_turn>"], NAMED)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        image_seq_length=TOKENS,
        chat_template=TEMPLATE,
    )
    own = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16, "query_pre_attn_scalar": 16}
    config = Gemma3Config(
        text_config=text_of(tokenizer, **own),
        vision_config={"model_type": "siglip_vision_model", **VISION, "image_size": SIDE, "patch_size": 7},
        mm_tokens_per_image=TOKENS,
        **ids_of(tokenizer, **{f"{name}_index": token for name, token in NAMED.items()}),
    )
    save(folder, Gemma3ForConditionalGeneration, config, processor, ENDS)
