"""Conversations in the form that chat templates of transformers and OpenAI-compatible servers take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from typing import Any

from lightning_sal.samples import Message

IMAGE = {"type": "image"}


def chat(messages: Sequence[Message], images: Iterable[dict[str, Any]] = repeat(IMAGE)) -> list[dict[str, Any]]:
    """A conversation as a list of turns, each with its role and its parts: images, then text.

    Args:
        messages: The conversation.
        images: The part that stands for each image, in order; by default a placeholder.
    """
    parts = iter(images)
    return [
        {
            "role": message.role,
            "content": [*islice(parts, message.images), {"type": "text", "text": message.text}],
        }
        for message in messages
    ]


def chat_text(processor: Any, messages: Sequence[Message]) -> str:
    """A conversation as the text that the model goes on with, one placeholder an image."""
    return processor.apply_chat_template(chat(messages), tokenize=False, add_generation_prompt=True)
