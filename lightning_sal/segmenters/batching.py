"""What every segmenter does with a batch: see each image, and each prompt on it, once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Prompt = TypeVar("Prompt", bound=Hashable)


@torch.no_grad()
def segment_distinct(
    module: nn.Module,
    images: Sequence[Tensor],
    prompts: Sequence[Sequence[Prompt]],
    logits: Callable[[list[Tensor], list[list[Prompt]]], list[Tensor]],
    max_batch: int,
) -> list[Tensor]:
    """One mask a prompt, in the frame of its image; evaluation mode, no gradient.

    Args:
        module: The segmenter.
        images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ. Images are the same where the objects are.
        prompts: For each image its E >= 0 prompts; prompts are the same where they are equal.
        logits: Of images and their distinct prompts, at least one each: (E, H, W) an image, the mask where > 0.
        max_batch: Most images in one call of `logits`.

    Returns:
        B boolean tensors of shape (E, H, W) on the device of the module, True inside the object.

    Raises:
        ValueError: If there are not as many lists of prompts as images.
    """
    if len(images) != len(prompts):
        raise ValueError(f"segment got {len(images)} images and {len(prompts)} lists of prompts: give one each")
    # The G responses to a prompt ask about the same images, and often in the same words
    distinct = {id(image): image for image in images}
    asked: dict[int, dict[Prompt, Tensor]] = {key: {} for key in distinct}
    for image, wanted in zip(images, prompts, strict=True):
        asked[id(image)] |= dict.fromkeys(wanted, torch.empty(0))
    keys = [key for key, wanted in asked.items() if wanted]
    with evaluating(module):
        for start in range(0, len(keys), max_batch):
            part = keys[start : start + max_batch]
            found = logits([distinct[key] for key in part], [list(asked[key]) for key in part])
            for key, grids in zip(part, found, strict=True):
                asked[key] = dict(zip(asked[key], grids > 0, strict=True))
    none = torch.zeros(0, dtype=torch.bool, device=next(module.parameters()).device)
    return [
        torch.stack([asked[id(image)][prompt] for prompt in wanted]) if wanted else none.new_zeros(0, *image.shape[:2])
        for image, wanted in zip(images, prompts, strict=True)
    ]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, each submodule's own mode after."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
