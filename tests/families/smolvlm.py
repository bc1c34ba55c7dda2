"""SmolVLM: a Llama under `text_model`, images cut into rows and columns, padded to as many as the longest prompt has."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

from tests.families.base import VISION, byte_level, ids_of, save, text_of

# Its processor asks for the package num2words, which only writes out how many frames a video has.
if getattr(processing_smolvlm, "num2words") is None:  # noqa: B009  it does not export the name
    setattr(processing_smolvlm, "num2words", str)  # noqa: B010

SIDE, PATCH = 28, 7  # of a part of an image; 4 x 4 patches are 4 tokens
PLACES = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))
IMAGE = ("<fake_token_around_image>", "<image>", "<global-img>", *PLACES)
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def build(folder: Path) -> None:
    special = ["<|im_start|>", "<|im_end|>", "<end_of_utterance>", *IMAGE]
    tokenizer = byte_level(special, end="<end_of_utterance>", pad="<|im_end|>")
    sizes = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(num_frames=4, fps=1, **sizes),
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **text_of(tokenizer)},
        vision_config={**VISION, "image_size": SIDE, "patch_size": PATCH},
        scale_factor=2,
        **ids_of(tokenizer, image_token_id="<image>"),
    )
    save(folder, SmolVLMForConditionalGeneration, config, processor)
