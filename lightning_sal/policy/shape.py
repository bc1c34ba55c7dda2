"""A policy without its weights: how many parameters it has, and how many tokens its prompts take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_sal.files.loading import built_from
from lightning_sal.internals.hub import is_hub_name, require_hub
from lightning_sal.policy.adapters import add_lora
from lightning_sal.policy.chat import chat_text
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.general.policy import prompt_text
from lightning_sal.policy.general.prompts import processed
from lightning_sal.policy.loading import freeze, load_processor, read_instructions
from lightning_sal.policy.parts import language_parameters
from lightning_sal.samples import Message
from lightning_sal.tiny.scratch import SCRATCH_POLICIES
from lightning_sal.tiny.weights import EMBEDDED_POLICIES


def load_shape(config: PolicyConfig) -> tuple[Any, Any, dict[str, str]]:
    """The model that `Policy` trains, on the device `meta`: no weight is read, and none of a hub name is downloaded.

    Returns:
        The model, frozen and with adapters as in training; its processor; and a mapping task -> instruction, where its
        folder states it.

    Raises:
        OSError: If there is neither a folder nor a model on the hub of that name.
    """
    if config.model in SCRATCH_POLICIES:
        model, processor, stated = SCRATCH_POLICIES[config.model]()
        return on_meta(model.config, config), processor, stated
    from transformers import AutoConfig

    source = str(EMBEDDED_POLICIES.get(config.model, config.model))
    if is_hub_name(source):
        require_hub(source)
    with built_from(f"policy model '{source}'"):
        model = on_meta(AutoConfig.from_pretrained(source), config)
    return model, load_processor(source, config), read_instructions(Path(source))


def on_meta(sizes: Any, config: PolicyConfig) -> Any:
    """A model of the sizes in a config of transformers, frozen and with adapters as `config` says, without storage."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(sizes).to(getattr(torch, config.dtype))
        freeze(model, train_vision=config.train_vision)
        if config.lora is not None:
            add_lora(model, config.lora)
    return model


def count_parameters(model: Any) -> dict[str, tuple[int, int]]:
    """Part -> (trainable, frozen) parameters; weights that two parts share count once.

    Args:
        model: As `load_shape` returns it.

    Returns:
        For "vision tower" (its projection included), "language model" and "adapters".
    """
    counts = {"vision tower": [0, 0], "language model": [0, 0], "adapters": [0, 0]}
    language = language_parameters(model)
    for name, parameter in model.named_parameters():
        part = "adapters" if ".lora_" in name else "language model" if parameter in language else "vision tower"
        counts[part][0 if parameter.requires_grad else 1] += parameter.numel()
    return {part: (trainable, frozen) for part, (trainable, frozen) in counts.items()}


def read_prompt(model: Any, processor: Any, messages: Sequence[Message], images: Sequence[Tensor]) -> tuple[int, int]:
    """Visual tokens of each image and all tokens of a prompt, of any family, as its processor makes them.

    Args:
        model: As `load_shape` returns it.
        processor: Of the model.
        messages: The conversation.
        images: Its images, (H, W, 3) uint8, of one size.
    """
    inputs = processed(processor, [prompt_text(processor, messages)], [images])
    visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    return visual // len(images), int(inputs["attention_mask"].sum())


def visual_tokens(processor: Any, height: int, width: int) -> int:
    """Visual tokens of an image of H x W pixels, of a Qwen2.5-VL or Qwen3-VL.

    Both sides are rounded to multiples of patch x merge size (28), their ratio nearly kept, so that the image has from
    min_pixels to max_pixels; each square of that side becomes a token.
    """
    images = processor.image_processor
    return images.get_number_of_image_patches(height, width) // images.merge_size**2


def most_visual_tokens(processor: Any) -> int:
    """The most visual tokens that an image takes in a Qwen2.5-VL or Qwen3-VL: max_pixels / (patch x merge size)^2."""
    images = processor.image_processor
    return images.size["longest_edge"] // (images.patch_size * images.merge_size) ** 2


def prompt_tokens(processor: Any, messages: Sequence[Message], visual: int) -> int:
    """Tokens of a conversation with images of `visual` tokens each, the chat template included."""
    images = sum(message.images for message in messages)
    return len(processor.tokenizer(chat_text(processor, messages))["input_ids"]) + images * (visual - 1)
