"""Gemma 4: logits that are capped, embeddings of tokens for each layer, heads of two sizes, at least 70 tokens an image."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
)

from tests.families.base import VISION, ids_of, save, text_of
from tests.families.gemma3 import TEMPLATE, characters

PATCH = 4
TURNS = ("<|turn>", "<turn|>")
NAMED = {
    **{"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"},
    **{"boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>"},
}
OWN = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 16,
    "global_head_dim": 32,
    "final_logit_softcapping": 2.0,
    "use_bidirectional_attention": "vision",
    "hidden_size_per_layer_input": 8,
}


def build(folder: Path) -> None:
    tokenizer = characters([*TURNS, "<|video|>"], NAMED)
    changed = {"<start_of_turn>": TURNS[0], "<end_of_turn>": TURNS[1], "<start_of_image>": NAMED["image_token"]}
    template = TEMPLATE
    for before, after in changed.items():
        template = template.replace(before, after)
    images = {"patch_size": PATCH, "max_soft_tokens": 70}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(**images),
        chat_template=template,
        image_seq_length=70,
    )
    names = {"boi_token": "boi_token_id", "eoi_token": "eoi_token_id", "image_token": "image_token_id"}
    names |= {"boa_token": "boa_token_id", "eoa_token": "eoa_token_index", "audio_token": "audio_token_id"}
    text = text_of(tokenizer, **OWN)
    vision = {**VISION, "num_key_value_heads": 2, "head_dim": 16, "patch_size": PATCH, "position_embedding_size": 256}
    config = Gemma4Config(
        text_config={**text, "vocab_size_per_layer_input": text["vocab_size"]},
        vision_config=vision,
        audio_config=None,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        **ids_of(tokenizer, **{name: NAMED[token] for token, name in names.items()}),
    )
    save(folder, Gemma4ForConditionalGeneration, config, processor, ("<eos>", TURNS[1]))
