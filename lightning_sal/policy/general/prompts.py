"""Prompts as the processor of any family makes them.

Legend: P prompts of at most L tokens, padded left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.files.loading import built_from
from lightning_sal.policy.prompts import Prompts
from lightning_sal.transfer import moved

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class GeneralPrompts(Prompts):
    """P prompts by a processor, which alone knows how its family lays out pixels.

    Where it makes of a batch what it makes of each prompt alone, side by side, each image goes through it once, and parts of
    the batch are put together from that; else they are made anew.

    Args:
        processor: Of the model.
        texts: P prompts, as the chat template writes them, one placeholder an image.
        images: For each prompt its images, (H, W, 3) uint8.
        device: Where the model is.
        apart: What the processor made of each prompt alone; None where that cannot be put together: see `made_apart`.
    """

    processor: Any
    texts: tuple[str, ...]
    images: tuple[tuple[Tensor, ...], ...]
    device: torch.device
    apart: tuple[Inputs, ...] | None = None
    inputs: Inputs = field(init=False)
    """What a forward pass takes: `input_ids`, `attention_mask`, pixels, and what else the family needs."""
    ids: Tensor = field(init=False)
    mask: Tensor = field(init=False)
    lengths: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        whole = side_by_side(self.apart, self.processor.tokenizer.pad_token_id) if self.apart else None
        made = whole or on_device(processed(self.processor, self.texts, self.images), self.device)
        if self.apart:
            lengths = [part["input_ids"].shape[1] for part in self.apart]
        else:
            lengths = made["attention_mask"].sum(1).tolist()
        object.__setattr__(self, "inputs", made)
        object.__setattr__(self, "ids", made["input_ids"])
        object.__setattr__(self, "mask", made["attention_mask"].bool())
        object.__setattr__(self, "lengths", tuple(lengths))

    def select(self, rows: Sequence[int]) -> GeneralPrompts:
        """See `Prompts.select`."""
        if list(rows) == list(range(len(self))):
            return self
        apart = self.apart and tuple(self.apart[row] for row in rows)
        texts, images = tuple(self.texts[row] for row in rows), tuple(self.images[row] for row in rows)
        return GeneralPrompts(self.processor, texts, images, self.device, apart)

    @classmethod
    def joined(cls, parts: Sequence[GeneralPrompts]) -> GeneralPrompts:
        """See `Prompts.joined`."""
        texts = tuple(text for part in parts for text in part.texts)
        images = tuple(shown for part in parts for shown in part.images)
        apart = tuple(each for part in parts for each in part.apart or ())
        return cls(parts[0].processor, texts, images, parts[0].device, apart if len(apart) == len(texts) else None)

    def followed(self, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """What a forward pass takes to read responses (P, T) behind the prompts; their mask is True on real tokens."""
        inputs: dict[str, Any] = dict(self.inputs)
        for name, value in self.inputs.items():
            if value.shape == self.ids.shape:  # one a token: a response is text, which families call 0
                inputs[name] = torch.cat([value, value.new_zeros(tokens.shape)], dim=1)
        inputs["input_ids"] = torch.cat([self.ids, tokens], dim=1)
        inputs["attention_mask"] = torch.cat([self.inputs["attention_mask"], mask.to(self.inputs["attention_mask"])], 1)
        return inputs


def made_apart(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Tensor]], device: torch.device
) -> tuple[Inputs, ...]:
    """What a processor makes of each of some prompts alone, on a device."""
    return tuple(
        on_device(processed(processor, [text], [shown]), device) for text, shown in zip(texts, images, strict=True)
    )


def side_by_side(parts: Sequence[Inputs], pad: int) -> Inputs | None:
    """A batch of what was made of its prompts alone, padded left; None where their tensors do not fit each other.

    Args:
        parts: Of each prompt, a batch of one.
        pad: Id that fills up shorter prompts.
    """
    lengths = [part["input_ids"].shape[1] for part in parts]
    if any(part.keys() != parts[0].keys() for part in parts):
        return None
    batch: Inputs = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if all(value.shape == (1, length) for value, length in zip(values, lengths, strict=True)):  # one a token
            fill = pad if name == "input_ids" else 0
            values = [
                F.pad(each, (max(lengths) - length, 0), value=fill)
                for each, length in zip(values, lengths, strict=True)
            ]
        if any(value.shape[1:] != values[0].shape[1:] for value in values):
            return None
        batch[name] = torch.cat(values)
    return batch


def can_stand_side_by_side(processor: Any, text: str) -> bool:
    """Whether a processor makes of a batch what it makes of each prompt alone, side by side, as most do; tried out.

    Args:
        processor: Of the model.
        text: A prompt with one image.
    """
    texts = [text, f"{text} {text}", text.replace("a", "b")]
    sizes = [(56, 84)], [(84, 56), (56, 56)], [(70, 42)]
    draw = torch.Generator().manual_seed(0)
    images = [[torch.randint(1, 256, (*size, 3), dtype=torch.uint8, generator=draw) for size in own] for own in sizes]
    for rows in ([0, 2], [1, 1], [0, 1, 2]):
        try:
            shown = [texts[row] for row in rows], [images[row] for row in rows]
            whole = processed(processor, *shown)
        except ValueError:  # it takes one image
            continue
        found = side_by_side(made_apart(processor, *shown, torch.device("cpu")), processor.tokenizer.pad_token_id)
        if found is not None and not (
            found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
        ):
            return False
    return True


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Inputs on a device."""
    return {name: moved(value, device) for name, value in inputs.items()}


def processed(processor: Any, texts: Sequence[str], images: Sequence[Sequence[Tensor]]) -> Inputs:
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
