"""What the vision tower is shown of images: resized bytes, cut into patches, on the device of the policy.

Bytes go there as they are, a quarter of what floats would be, and are resized there: on the CPU that takes half a second of
a step with 24 large images, in which a GPU would idle. The pixels are the CPU's own, to the bit.

Legend: H x W pixels of an image, H' x W' after it was resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sal.internals.resizing import Kernel, resize_bytes
from lightning_sal.policy.backbone import shown_size
from lightning_sal.transfer import moved

_KERNELS: dict[int, Kernel] = {2: "bilinear", 3: "bicubic"}  # By Pillow's numbers, in which processors state them


def resized(image: Tensor, image_processor: Any) -> Tensor:
    """An image as an image processor resizes it, on the image's device.

    Args:
        image: (H, W, 3) uint8.
        image_processor: Of the policy.

    Returns:
        (H', W', 3) uint8.

    Raises:
        ValueError: If the processor resizes by another kernel than a bilinear or bicubic one.
    """
    number = int(image_processor.resample)
    if number not in _KERNELS:
        raise ValueError(
            f"the image processor has resample {number}: set it to 3, bicubic, in preprocessor_config.json"
        )
    size = shown_size(image_processor, (image.shape[0], image.shape[1]))
    if size == image.shape[:2]:
        return image
    return resize_bytes(image.permute(2, 0, 1)[None], size, _KERNELS[number], antialias=True)[0].permute(1, 2, 0)


def patches(images: Sequence[Tensor], image_processor: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images as the vision tower takes them; one after the other, so that no two stand in memory in full size.

    Args:
        images: At least one of (H, W, 3) uint8, sizes may differ.
        image_processor: Of the policy.
        device: Where they are resized.

    Returns:
        (patches, values) float32 pixels on the device, and on the CPU (images, 3) patches in time, height and width.
    """
    small = [resized(moved(image, device), image_processor).permute(2, 0, 1) for image in images]
    found = image_processor(small, do_resize=False, return_tensors="pt")
    return found["pixel_values"], found["image_grid_thw"]
