"""A small SAM 3 with random weights, as transformers writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIZE = 56  # pixels of a side of what it sees
_WIDTH = 32


def tiny_config() -> Any:
    """Sizes of a SAM 3 of 0.3 million weights, with as many text tokens as the published one."""
    from transformers import Sam3Config

    blocks = {"hidden_size": _WIDTH, "num_attention_heads": 2}
    layers = {**blocks, "intermediate_size": 64}
    backbone = {
        **layers,
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 2,
        "image_size": SIZE,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    text = {
        **layers,
        "model_type": "clip_text_model",
        "vocab_size": len(_vocabulary()),
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": _WIDTH,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text,
        geometry_encoder_config={**layers, "num_layers": 1},
        detr_encoder_config={**layers, "num_layers": 1},
        detr_decoder_config={**layers, "num_layers": 2, "num_queries": 9},
        mask_decoder_config=blocks,
    )


def tiny_model(seed: int = 0) -> Any:
    """Its weights are large enough that phrases differ in masks, scores and presence."""
    from transformers import Sam3Model

    model = Sam3Model(tiny_config()).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.25, generator=generator)
            elif "norm" not in name:
                weight.normal_(0, 0.1, generator=generator)
    return model


def tiny_processor() -> Any:
    from transformers import CLIPTokenizer, Sam3ImageProcessor, Sam3Processor

    tokenizer = CLIPTokenizer(vocab=_vocabulary(), merges=[])
    side = {"height": SIZE, "width": SIZE}
    return Sam3Processor(Sam3ImageProcessor(size=side, mask_size={"height": 16, "width": 16}), tokenizer)


def save(folder: Path, seed: int = 0) -> Path:
    """A folder as transformers writes it."""
    tiny_model(seed).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def _vocabulary() -> dict[str, int]:
    """A token a letter, within a word and at its end."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-[]"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return {token: number for number, token in enumerate(tokens)}
