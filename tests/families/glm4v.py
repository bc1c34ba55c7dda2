"""GLM-4.1V: images of any size, positions of three axes, gate and up projection in one layer, several ends of a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
)

from tests.families.base import VISION, WIDTH, byte_level, ids_of, save, text_of

ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")
SPECIAL = (
    *ENDS,
    *("[gMASK]", "<sop>", "<|system|>", "<|assistant|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
)
TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PIXELS = {"shortest_edge": 2 * 2 * 28 * 28, "longest_edge": 2 * 12 * 28 * 28}  # a token each 28 x 28, and two frames


def build(folder: Path) -> None:
    parts = (Glm4vProcessor, Glm4vImageProcessor, Glm4vVideoProcessor)
    build_glm(folder, Glm4vForConditionalGeneration, Glm4vConfig, *parts)


def build_glm(folder: Path, make: Any, settings: Any, processor_of: Any, images: Any, videos: Any) -> None:
    """A GLM of these classes: the model, its settings, its processor, and those of images and videos."""
    tokenizer = byte_level(SPECIAL, end="<|endoftext|>", pad="<|endoftext|>")
    processor = processor_of(
        image_processor=images(size=PIXELS),
        tokenizer=tokenizer,
        video_processor=videos(),
        chat_template=TEMPLATE,
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
    vision = {"depth": 2, "num_heads": 2, "image_size": 56, "out_hidden_size": WIDTH}
    config = settings(
        text_config={"model_type": "glm4v_text", **text_of(tokenizer, rope_parameters=rope)},
        vision_config={"model_type": "glm4v_vision", **vision, **_sizes(VISION)},
        **ids_of(
            tokenizer,
            image_token_id="<|image|>",
            video_token_id="<|video|>",
            image_start_token_id="<|begin_of_image|>",
            image_end_token_id="<|end_of_image|>",
            video_start_token_id="<|begin_of_video|>",
            video_end_token_id="<|end_of_video|>",
        ),
    )
    save(folder, make, config, processor, ENDS)


def _sizes(vision: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in vision.items() if name.endswith("_size")}
