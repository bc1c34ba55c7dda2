"""Two segmenters as one: words go to the one, boxes and points to the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sal.samples import VisualPrompt
from lightning_sal.segmenters.base import Found, Segmenter, find
from lightning_sal.segmenters.batching import stacked


class SegmenterByPrompt(nn.Module):
    """Takes words and visual prompts, in one batch or on one image, each answered by the segmenter for its kind.

    Args:
        words: Finds what expressions name.
        visual: Finds what boxes and points show.
    """

    def __init__(self, words: Segmenter[str], visual: Segmenter[VisualPrompt]) -> None:
        super().__init__()
        self.words: Any = words  # registered where they are modules, so that they are frozen and moved
        self.visual: Any = visual

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str | VisualPrompt]]) -> list[Tensor]:
        """One mask a prompt, in the frame of its image, in the order of the prompts.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            prompts: For each image its E >= 0 prompts.

        Returns:
            B boolean tensors of shape (E, H, W), True inside the object.

        Raises:
            ValueError: If there are not as many lists of prompts as images.
        """
        return [found.masks for found in self.segment_with_presence(images, prompts)]

    def segment_with_presence(
        self, images: Sequence[Tensor], prompts: Sequence[Sequence[str | VisualPrompt]]
    ) -> list[Found]:
        """The masks, as `segment` gives them, with presence scores where the segmenter for a kind of prompt gives some."""
        if len(images) != len(prompts):
            raise ValueError(f"segment got {len(images)} images and {len(prompts)} lists of prompts: give one each")
        found: dict[bool, list[Found]] = {}
        for visual, segmenter in ((False, self.words), (True, self.visual)):
            own = [[each for each in of_image if isinstance(each, VisualPrompt) is visual] for of_image in prompts]
            if any(own):
                found[visual] = find(segmenter, images, own)
        device = next((each.masks.device for of_kind in found.values() for each in of_kind), torch.device("cpu"))
        joined = []
        for number, (image, of_image) in enumerate(zip(images, prompts, strict=True)):
            here = {visual: of_kind[number] for visual, of_kind in found.items()}
            rest = {visual: _rows(each) for visual, each in here.items()}
            rows = [next(rest[isinstance(each, VisualPrompt)]) for each in of_image]
            masks = stacked([mask for mask, _ in rows], image, device)
            scored = any(len(each.masks) and each.presence is not None for each in here.values())
            joined.append(Found(masks, torch.stack([score for _, score in rows]) if scored else None))
        return joined


def _rows(found: Found) -> Iterator[tuple[Tensor, Tensor]]:
    """The mask and the presence score of each prompt on an image."""
    masks, presence = found
    unknown = torch.full((len(masks),), math.nan, device=masks.device)
    return zip(masks, unknown if presence is None else presence, strict=True)
