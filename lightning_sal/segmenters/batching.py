"""What every segmenter does with a batch: see each image, and each prompt on it, once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightning_sal.transfer import moved

Prompt = TypeVar("Prompt", bound=Hashable)
Finding = TypeVar("Finding")
_MOST_PIXELS = 2**24  # of images that are made ready together: 200 MB where they are floats


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
    device = next(module.parameters()).device

    def masks(images: list[Tensor], prompts: list[list[Prompt]]) -> list[Tensor]:
        return [grids > 0 for grids in logits(images, prompts)]

    found = find_distinct(module, images, prompts, masks, max_batch)
    return [stacked(each, image, device) for each, image in zip(found, images, strict=True)]


@torch.no_grad()
def find_distinct(
    module: nn.Module,
    images: Sequence[Tensor],
    prompts: Sequence[Sequence[Prompt]],
    find: Callable[[list[Tensor], list[list[Prompt]]], Sequence[Iterable[Finding]]],
    max_batch: int,
) -> list[list[Finding]]:
    """What is found for each prompt; evaluation mode, no gradient.

    Args:
        module: The segmenter.
        images: As for `segment_distinct`.
        prompts: Likewise.
        find: Of images and their distinct prompts, at least one each: an image's findings, one a prompt.
        max_batch: Most images in one call of `find`.

    Returns:
        For each image one finding a prompt.

    Raises:
        ValueError: If there are not as many lists of prompts as images.
    """
    if len(images) != len(prompts):
        raise ValueError(f"segment got {len(images)} images and {len(prompts)} lists of prompts: give one each")
    # The G responses to a prompt ask about the same images, and often in the same words
    distinct = {id(image): image for image in images}
    asked: dict[int, dict[Prompt, None]] = {key: {} for key in distinct}
    for image, wanted in zip(images, prompts, strict=True):
        asked[id(image)] |= dict.fromkeys(wanted)
    keys = [key for key, wanted in asked.items() if wanted]
    answers: dict[int, dict[Prompt, Finding]] = {}
    with evaluating(module):
        for start in range(0, len(keys), max_batch):
            part = keys[start : start + max_batch]
            found = find([distinct[key] for key in part], [list(asked[key]) for key in part])
            for key, findings in zip(part, found, strict=True):
                answers[key] = dict(zip(asked[key], findings, strict=True))
    return [[answers[id(image)][prompt] for prompt in wanted] for image, wanted in zip(images, prompts, strict=True)]


def stacked(masks: Sequence[Tensor], image: Tensor, device: torch.device) -> Tensor:
    """The E >= 0 masks (H, W) of an image of (H, W, 3) as one (E, H, W) bool tensor."""
    return torch.stack(list(masks)) if masks else torch.zeros(0, *image.shape[:2], dtype=torch.bool, device=device)


def views(images: Sequence[Tensor], view: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """What a network sees of images: their bytes go to its device, and those of one size are made ready together.

    Args:
        images: B >= 1 of (H, W, 3) uint8, sizes may differ.
        view: (b, 3, H, W) uint8 -> (b, 3, S, S).
        device: Of the network.

    Returns:
        (B, 3, S, S) on the device.

    Raises:
        ValueError: If an image has another shape or dtype.
    """
    alike: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        alike[image.shape].append(number)
    found: dict[int, Tensor] = {}
    for shape, numbers in alike.items():
        step = max(1, _MOST_PIXELS // max(1, shape[:2].numel()))
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            bytes_ = torch.cat([planes(moved(images[number], device)) for number in part])
            found |= zip(part, view(bytes_), strict=True)
    return torch.stack([found[number] for number in range(len(images))])


def planes(image: Tensor) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) uint8.

    Raises:
        ValueError: If the image has another shape or dtype.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be (H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}")
    return image.permute(2, 0, 1)[None].contiguous()


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
