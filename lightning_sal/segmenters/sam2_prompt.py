"""SAM2 prompted by boxes and points.

Legend: B images of size H x W, E prompts on an image, N prompts in all, P points of a prompt (a box is two), S pixels of
a side of the square that SAM2 sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.samples import VisualPrompt
from lightning_sal.segmenters.batching import segment_distinct, views
from lightning_sal.segmenters.sam2_model import (
    build_sam2,
    decode,
    encode_images,
    encode_points,
    normalised,
    to_image_frames,
    without_memory,
)
from lightning_sal.segmenters.weights import fill, find_file, read_file
from lightning_sal.transfer import indices, moved

_BOX_LABELS = (2, 3)  # SAM2 reads a box as its first and its second corner


def prompt_labels(prompt: VisualPrompt) -> list[int]:
    """What SAM2 calls each of the corners and points of a prompt."""
    return [*(() if prompt.box is None else _BOX_LABELS), *prompt.labels]


class SAM2Prompt(nn.Module):
    """Segmentation of what a box or points show, image and prompts treated as `sam2`'s own image predictor does.

    Ravi et al., "SAM 2: Segment Anything in Images and Videos", arXiv:2408.00714. The defaults are the sizes of
    SAM2 large.

    Args:
        sam2_config: Name of a YAML in the `sam2` package.
        sam2_overrides: Values by dotted key of that YAML.
        image_size: Pixels of a side of the square that SAM2 sees; every image is squashed to it.
        multimask: True takes the best of three masks by predicted IoU, False the single mask, with SAM2's fallback
            where it is unstable; null takes the best of three for a single point, which may mean a part or the whole,
            and the single mask for all else.
        max_batch: Most images, and most prompts, in one forward pass of `segment`.
    """

    def __init__(
        self,
        sam2_config: str = "sam2_hiera_l.yaml",
        sam2_overrides: dict[str, Any] | None = None,
        image_size: int = 1024,
        multimask: bool | None = None,
        max_batch: int = 32,
    ) -> None:
        super().__init__()
        self.image_size, self.multimask, self.max_batch = image_size, multimask, max_batch
        self.sam2 = build_sam2(sam2_config, sam2_overrides or {}, image_size)

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[VisualPrompt]]) -> list[Tensor]:
        """One mask a prompt, in the frame of its image; evaluation mode, no gradient.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            prompts: For each image its E >= 0 prompts.

        Returns:
            B boolean tensors of shape (E, H, W) on the device of the weights, True inside the object.

        Raises:
            ValueError: If an image has another shape or dtype, or there are not as many lists of prompts as images.
        """
        return segment_distinct(self, images, prompts, self.mask_logits, self.max_batch)

    def mask_logits(self, images: Sequence[Tensor], prompts: Sequence[Sequence[VisualPrompt]]) -> list[Tensor]:
        """Logits of each image's E >= 1 prompts at its own size, the mask where > 0.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            prompts: For each image its prompts.

        Returns:
            B tensors (E, H, W) in float32.
        """
        device = self.sam2.no_mem_embed.device
        pixels = views(images, self._view, device)
        features = encode_images(self.sam2, pixels.to(self.sam2.no_mem_embed.dtype))
        owner = [number for number, of_image in enumerate(prompts) for _ in of_image]
        asked = [prompt for of_image in prompts for prompt in of_image]
        low: dict[int, Tensor] = {}
        for part, multimask in self._alike(asked):
            index = indices([owner[n] for n in part], device)
            coordinates = torch.stack([self._squashed(asked[n], images[owner[n]]) for n in part])
            labels = torch.tensor([prompt_labels(asked[n]) for n in part])
            points = encode_points(self.sam2, moved(coordinates, device), moved(labels, device))
            low |= zip(part, decode(self.sam2, features.select(index), points, multimask=multimask), strict=True)
        grids = torch.stack([low[n] for n in range(len(asked))])
        return to_image_frames(grids, images, [len(of_image) for of_image in prompts])

    def _alike(self, prompts: Sequence[VisualPrompt]) -> list[tuple[list[int], bool]]:
        """Indices of prompts that one pass of the decoder takes: as many points, and as many masks to choose from.

        Shorter prompts are not padded: SAM2 attends to what fills them up, and their masks would change.
        """
        kinds: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
        for n, prompt in enumerate(prompts):
            size = len(prompt_labels(prompt))
            kinds[size, size == 1 if self.multimask is None else self.multimask].append(n)
        step = self.max_batch
        return [
            (members[start : start + step], multimask)
            for (_, multimask), members in kinds.items()
            for start in range(0, len(members), step)
        ]

    def _view(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) uint8 -> (b, 3, S, S) as `sam2`'s predictor resizes them."""
        size = (self.image_size, self.image_size)
        return normalised(F.interpolate(images / 255, size, mode="bilinear", align_corners=False, antialias=True), 255)

    def _squashed(self, prompt: VisualPrompt, image: Tensor) -> Tensor:
        """(P, 2) points in pixels of the square."""
        height, width = image.shape[:2]
        return torch.tensor(prompt.corners_and_points) / torch.tensor([width, height]) * self.image_size

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: torch.dtype = torch.float32,
        sam2_config: str = "sam2_hiera_l.yaml",
        sam2_overrides: dict[str, Any] | None = None,
        image_size: int = 1024,
        multimask: bool | None = None,
        max_batch: int = 32,
    ) -> SAM2Prompt:
        """A segmenter in evaluation mode from weights under SAM2's own names; those of its memory are left out.

        Args:
            source: A .safetensors file, a .pt file as SAM2 is published, or a folder with one of them.
            dtype: Of the parameters; buffers are float32.
            sam2_config: As of the class, and so are the rest.
            sam2_overrides: Values by dotted key of that YAML.
            image_size: Pixels of a side of the square that SAM2 sees.
            multimask: True the best of three masks, False the single one, null as the prompt asks for.
            max_batch: Most images, and most prompts, in one forward pass of `segment`.

        Raises:
            FileNotFoundError: If there is no such file, or not exactly one in the folder.
            ValueError: If the weights do not fit the sizes, or a .pt file holds anything else than tensors.
        """
        from accelerate import init_empty_weights

        file = find_file(source)
        state = without_memory(read_file(file))
        with init_empty_weights():
            model = cls(sam2_config, sam2_overrides, image_size, multimask, max_batch)
        fill(model.sam2, state, str(file), dtype)
        return model.eval()
