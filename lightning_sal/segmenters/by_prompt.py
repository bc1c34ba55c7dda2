"""Two segmenters as one: words go to the one, boxes and points to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sal.samples import VisualPrompt
from lightning_sal.segmenters.base import Segmenter


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
        if len(images) != len(prompts):
            raise ValueError(f"segment got {len(images)} images and {len(prompts)} lists of prompts: give one each")
        found: dict[bool, list[Tensor]] = {}
        for visual, segmenter in ((False, self.words), (True, self.visual)):
            own = [[each for each in of_image if isinstance(each, VisualPrompt) is visual] for of_image in prompts]
            if any(own):
                found[visual] = segmenter.segment(images, own)
        device = next((mask.device for of_kind in found.values() for mask in of_kind), None)
        masks = []
        for number, (image, of_image) in enumerate(zip(images, prompts, strict=True)):
            rest = {visual: iter(of_kind[number]) for visual, of_kind in found.items()}
            rows = [next(rest[isinstance(each, VisualPrompt)]) for each in of_image]
            none = torch.zeros(0, *image.shape[:2], dtype=torch.bool, device=device)
            masks.append(torch.stack(rows) if rows else none)
        return masks
