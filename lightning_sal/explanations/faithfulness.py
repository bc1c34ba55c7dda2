"""Insertion and deletion: how the likelihood of a response changes as the pixels that a map names leave the picture.

The score of a picture is the mean log-likelihood of the response's own tokens behind it, in nats a token. How pictures are
changed and scores are scaled stands in `lightning_sal.metrics.functional.faithfulness`.

Legend: K images of a group of H x W pixels, N shares of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_sal.explanations.cases import Case
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.metrics.functional.faithfulness import blurred, perturbed

Images = tuple[Tensor, ...]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a case, whole, blank and in between.

    Args:
        case: Whose response is scored.
        blur: Standard deviation in pixels of the Gaussian that makes the blank pictures; None for black ones.
        batch: Pictures that are scored at once.
    """

    case: Case
    blur: float | None = None
    batch: int = 8

    @cached_property
    def blank(self) -> Images:
        """The K pictures that show nothing."""
        return tuple(
            torch.zeros_like(image) if self.blur is None else blurred(image, self.blur)
            for image in self.case.group.images
        )

    @torch.no_grad()
    def scores(self, pictures: Sequence[Images]) -> Tensor:
        """The score of each of N pictures: (N,) float64 on the CPU."""
        case, found = self.case, []
        for start in range(0, len(pictures), self.batch):
            groups = [replace(case.group, images=images) for images in pictures[start : start + self.batch]]
            many = [len(groups), -1]
            logp = case.policy.score(case.policy.encode(groups), case.tokens.expand(*many), case.mask.expand(*many))
            found.append(logp.double().mean(1).cpu())
        return torch.cat(found)

    def between(
        self, maps: Sequence[Tensor], shares: Sequence[float], mode: Literal["deletion", "insertion"]
    ) -> list[Images]:
        """The pictures without, or with nothing but, the most salient pixels of all K images together.

        Args:
            maps: Of the K images, each as large as its image.
            shares: Of all pixels.
            mode: As `perturbed` takes it.
        """
        images, sizes = self.case.group.images, [map.numel() for map in maps]
        found = perturbed(
            _strip(images), torch.cat([map.flatten() for map in maps])[None], shares, mode, _strip(self.blank)
        )
        parts = [strip[0].split(sizes) for strip in found]
        return [tuple(part.view_as(image) for part, image in zip(each, images, strict=True)) for each in parts]


def _strip(images: Images) -> Tensor:
    """All pixels in one row, (1, pixels, 3), so that they have one order."""
    return torch.cat([image.reshape(-1, 3) for image in images])[None]


def on_pixels(maps: LabelMaps, images: Images, *, positive: bool = False) -> Images:
    """The sum of the maps of all labels, resized bilinearly to each image.

    Args:
        maps: For each label those of the K images.
        images: K images (H, W, 3).
        positive: Whether what is negative counts as 0, as in all measures of mass.

    Returns:
        K maps (H, W) float64.
    """
    summed = [torch.stack(parts).double().sum(0) for parts in zip(*maps, strict=True)]
    summed = [part.clamp(min=0) if positive else part for part in summed]
    return tuple(
        interpolate(part[None, None], image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        for part, image in zip(summed, images, strict=True)
    )
