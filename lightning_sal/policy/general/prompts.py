"""Prompts as the processor of any family makes them.

Legend: P prompts of at most L tokens, padded left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_sal.files.loading import built_from
from lightning_sal.policy.prompts import Prompts
from lightning_sal.transfer import moved


@dataclass(frozen=True)
class GeneralPrompts(Prompts):
    """P prompts by a processor, which alone knows how its family lays out pixels: parts of a batch are made anew.

    Args:
        processor: Of the model.
        texts: P prompts, as the chat template writes them, one placeholder an image.
        images: For each prompt its images, (H, W, 3) uint8.
        device: Where the model is.
    """

    processor: Any
    texts: tuple[str, ...]
    images: tuple[tuple[Tensor, ...], ...]
    device: torch.device
    inputs: dict[str, Tensor] = field(init=False)
    """What a forward pass takes: `input_ids`, `attention_mask`, pixels, and what else the family needs."""
    ids: Tensor = field(init=False)
    mask: Tensor = field(init=False)
    lengths: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        inputs = processed(self.processor, self.texts, self.images)
        mask = inputs["attention_mask"].bool()
        found = {name: moved(value, self.device) for name, value in inputs.items()}
        object.__setattr__(self, "inputs", found)
        object.__setattr__(self, "ids", found["input_ids"])
        object.__setattr__(self, "mask", found["attention_mask"].bool())
        object.__setattr__(self, "lengths", tuple(mask.sum(1).tolist()))

    def select(self, rows: Sequence[int]) -> GeneralPrompts:
        """See `Prompts.select`."""
        if list(rows) == list(range(len(self))):
            return self
        texts, images = tuple(self.texts[row] for row in rows), tuple(self.images[row] for row in rows)
        return GeneralPrompts(self.processor, texts, images, self.device)

    @classmethod
    def joined(cls, parts: Sequence[GeneralPrompts]) -> GeneralPrompts:
        """See `Prompts.joined`."""
        texts = tuple(text for part in parts for text in part.texts)
        images = tuple(shown for part in parts for shown in part.images)
        return cls(parts[0].processor, texts, images, parts[0].device)

    def followed(self, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """What a forward pass takes to read responses (P, T) behind the prompts; their mask is True on real tokens."""
        inputs: dict[str, Any] = dict(self.inputs)
        for name, value in self.inputs.items():
            if value.shape == self.ids.shape:  # one a token: a response is text, which families call 0
                inputs[name] = torch.cat([value, value.new_zeros(tokens.shape)], dim=1)
        inputs["input_ids"] = torch.cat([self.ids, tokens], dim=1)
        inputs["attention_mask"] = torch.cat([self.inputs["attention_mask"], mask.to(self.inputs["attention_mask"])], 1)
        return inputs


def processed(processor: Any, texts: Sequence[str], images: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    """What a processor makes of prompts, padded left, on the CPU.

    Raises:
        ValueError: If it takes no such prompt, as one with several images.
    """
    bos = processor.tokenizer.bos_token
    pictures = [[image.cpu().permute(2, 0, 1) for image in shown] for shown in images]
    with built_from(f"a prompt of {max(map(len, images))} images to {type(processor).__name__}"):
        return dict(
            processor(
                text=list(texts),
                images=pictures if any(pictures) else None,
                padding=True,
                padding_side="left",
                add_special_tokens=not (bos and texts[0].startswith(bos)),  # which the chat template has written
                return_tensors="pt",
            )
        )
