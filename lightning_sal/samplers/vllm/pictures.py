"""Images as a request carries them: in the size in which the policy reads them, so that a server's own resize is none."""

from __future__ import annotations

import base64
import io
from typing import Any

from torch import Tensor

from lightning_sal.policy.chat import chat
from lightning_sal.policy.policy import Policy
from lightning_sal.samples import ImageGroup


def conversation(policy: Policy, group: ImageGroup) -> list[dict[str, Any]]:
    """The conversation of a group as a server takes it, its images as PNG.

    Raises:
        ValueError: If an image has a size for the policy that a processor would change again.
    """
    processor, images = policy.processor.image_processor, []
    for image in policy.shown(group):
        shown = resized(image, processor)
        if _size(shown, processor) != [*shown.shape[:2]]:
            here, there = (f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (image, shown))
            raise ValueError(
                f"{group.key}: an image of {here} pixels has {there} for the policy, which a server would resize again: "
                "leave more room between policy.min_pixels and max_pixels"
            )
        images.append({"type": "image_url", "image_url": {"url": _png(shown)}})
    return chat(policy.messages(group), images)


def resized(image: Tensor, processor: Any) -> Tensor:
    """An image as an image processor resizes it.

    Args:
        image: (H, W, 3) uint8.
        processor: Of the policy.

    Returns:
        (H', W', 3) uint8.
    """
    from torchvision.transforms.v2 import functional as vision
    from transformers.image_utils import PILImageResampling

    mode = vision.InterpolationMode[PILImageResampling(processor.resample).name]
    return vision.resize(image.permute(2, 0, 1), _size(image, processor), mode).permute(1, 2, 0)


def _size(image: Tensor, processor: Any) -> list[int]:
    """Height and width to which a processor resizes an image (H, W, 3)."""
    (grid,) = processor(image.permute(2, 0, 1), return_tensors="pt")["image_grid_thw"]
    return (grid[1:] * processor.patch_size).tolist()


def _png(image: Tensor) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.contiguous().numpy()).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
