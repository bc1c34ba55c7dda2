"""What a policy is shown of an image, and in which units it states places there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lightning_sal.frames import Frame, Size, Square
from lightning_sal.policy.backbone import MODEL_TYPES, shown_size


@dataclass(frozen=True, slots=True)
class Shown:
    """Pixels of the image as the vision tower is shown it.

    Args:
        image_processor: Resizes it.
        square: The side of the square that it is squashed to before; None where it is not.
    """

    image_processor: Any
    square: int | None = None

    def extent(self, size: Size) -> Size:
        """The (h, w) pixels to which an image of (H, W) pixels is resized."""
        return shown_size(self.image_processor, (self.square, self.square) if self.square else size)


def frame_of(model_type: str, image_processor: Any, square: int | None) -> Frame:
    """The units in which a kind of model states places; arguments as for `Shown`.

    Of families that are not known from inside it is taken to be 0 to 1000 of each side, as InternVL, GLM-4.1V and Qwen3.5
    have it.
    """
    side = MODEL_TYPES.get(model_type, 1000)
    return Shown(image_processor, square) if side is None else Square(side)


def at_most(image: Tensor, pixels: int | None) -> Tensor:
    """(H, W, 3) uint8, made smaller in its own shape where it has more pixels, bilinear with antialiasing."""
    height, width = image.shape[:2]
    if pixels is None or height * width <= pixels:
        return image
    scale = (pixels / (height * width)) ** 0.5
    return _resized(image, max(1, int(height * scale)), max(1, int(width * scale)))


def squashed(image: Tensor, side: int | None) -> Tensor:
    """(H, W, 3) uint8 -> (side, side, 3), bilinear with antialiasing; a side of None leaves it as it is."""
    if side is None or tuple(image.shape[:2]) == (side, side):
        return image
    return _resized(image, side, side)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    planes = image.permute(2, 0, 1)[None].float()
    resized = F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).round().clamp(0, 255).to(image.dtype)
