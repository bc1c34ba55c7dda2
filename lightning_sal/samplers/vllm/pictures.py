"""Images as a request carries them: in the size in which the policy reads them, so that a server's own resize is none."""

from __future__ import annotations

import base64
import io
from typing import Any

from torch import Tensor

from lightning_sal.policy.backbone import shown_size
from lightning_sal.policy.chat import chat
from lightning_sal.policy.images import resized
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
        if shown_size(processor, (shown.shape[0], shown.shape[1])) != tuple(shown.shape[:2]):
            here, there = (f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (image, shown))
            raise ValueError(
                f"{group.key}: an image of {here} pixels has {there} for the policy, which a server would resize again: "
                "leave more room between policy.min_pixels and max_pixels"
            )
        images.append({"type": "image_url", "image_url": {"url": _png(shown)}})
    return chat(policy.messages(group), images)


def _png(image: Tensor) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.cpu().contiguous().numpy()).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
