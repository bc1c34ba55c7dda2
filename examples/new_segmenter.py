"""A segmenter of your own: whatever has the colour that an expression names.

    PYTHONPATH=examples lightning fit --config conf/quickstart.yaml --config examples/new_segmenter.yaml

A segmenter is one class with one method, `segment`, and inherits from nothing. YAML takes it for one where that method has
the parameters and the annotations of `lightning_sal.segmenters.Segmenter`. Where it is a `torch.nn.Module`, it is frozen
and moved to the device of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import ImageColor
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor


class ColourSegmenter:
    """All pixels near the first colour that an expression names, by its name in CSS; none where it names none.

    Args:
        distance: How far a pixel may be from the colour, > 0, by CIEDE2000: 1 is just seen, 100 is black from white.
    """

    def __init__(self, distance: float = 20.0) -> None:
        if distance <= 0:
            raise ValueError(f"ColourSegmenter: distance must be above 0, not {distance}")
        self.distance = distance

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        """One mask an expression: for each of B images (E, H, W) bool."""
        masks = []
        for image, texts in zip(images, prompts, strict=True):
            found = torch.zeros(len(texts), *image.shape[:2], dtype=torch.bool)
            pixels = rgb2lab(image.cpu().numpy())
            for mask, text in zip(found, texts, strict=True):
                if named := [word for word in text.lower().split() if word in ImageColor.colormap]:
                    colour = rgb2lab(np.array([[ImageColor.getrgb(named[0])]], np.uint8))
                    mask.copy_(torch.from_numpy(deltaE_ciede2000(pixels, colour) < self.distance))
            masks.append(found)
        return masks
