"""Qwen3.5: layers of linear attention (gated delta rule) among those of attention, a turn that opens `<think>` by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5Tokenizer,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.families.base import CHATML, VISION, WIDTH, ids_of, qwen_words, save, text_of

IMAGE = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PIXELS = {"shortest_edge": 2 * 32 * 32, "longest_edge": 12 * 32 * 32}  # a token each 32 x 32
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
ROPE = {
    "rope_type": "default",
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.5,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
}


@torch.no_grad()
def _make(config: Qwen3_5Config) -> Any:
    """A model that forgets slowly: where it forgets fast, its two ways of reading differ by 1e-5 in float32."""
    model = Qwen3_5ForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            parameter.fill_(-2.0)
    return model


def build(folder: Path) -> None:
    tokenizer = qwen_words(Qwen3_5Tokenizer, IMAGE)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    turn = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, temporal_patch_size=2, merge_size=2, size=PIXELS),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=turn.replace("assistant\n", "assistant\n<think>\n"),
    )
    config = Qwen3_5Config(
        text_config=text_of(tokenizer, rope_parameters=ROPE, **LINEAR),
        vision_config={
            "depth": 2,
            "num_heads": 2,
            "hidden_size": WIDTH,
            "intermediate_size": VISION["intermediate_size"],
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 16,
        },
        **ids_of(
            tokenizer,
            image_token_id="<|image_pad|>",
            video_token_id="<|video_pad|>",
            vision_start_token_id="<|vision_start|>",
            vision_end_token_id="<|vision_end|>",
        ),
    )
    save(folder, _make, config, processor)
