"""What every system is given alike: a Qwen2.5-VL of random weights, prompts, and the settings of the update."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

LORA_RANK, LEARNING_RATE, CLIP = 8, 1e-6, 1.0


def build(given: argparse.Namespace) -> tuple[Any, Any, dict[str, str]]:
    """Model, processor and instructions, as `scratch_policy` returns them, at the size and on the device asked for."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from lightning_sal.tiny.policy import scratch_policy

    tiny, processor, instructions = scratch_policy()
    side = {"shortest_edge": given.pixels, "longest_edge": given.pixels}
    processor.image_processor.size = type(processor.image_processor.size)(**side)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    if given.model == "tiny":
        return tiny.to(given.device, dtype), processor, instructions
    special = {name: value for name, value in tiny.config.to_dict().items() if name.endswith("_token_id")}
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            max_position_embeddings=128000,
            rms_norm_eps=1e-6,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]),
        ),
        vision_config=dict(
            depth=32,
            hidden_size=1280,
            intermediate_size=3420,
            num_heads=16,
            out_hidden_size=3584,
            patch_size=14,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=112,
            fullatt_block_indexes=[7, 15, 23, 31],
        ),
        tie_word_embeddings=False,
        **special,
    )
    standard = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(given.device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(standard)
    model.generation_config = tiny.generation_config
    return model.eval(), processor, instructions


def groups_of(given: argparse.Namespace) -> list[Any]:
    """A group of K scenes for each prompt of each step; one image makes an SOD prompt, more make a CoSOD prompt."""
    from lightning_sal.datasets.scenes import SceneGroups

    count = given.prompts * (given.warmup + given.steps)
    task = "sod" if given.images == 1 else "cosod"
    scenes = SceneGroups(0, {"sod": 1}, annotated=False)
    parts = [[scenes[at * given.images + k] for k in range(given.images)] for at in range(count)]
    return [replace(part[0], task=task, images=tuple(one.images[0] for one in part), masks=None) for part in parts]
