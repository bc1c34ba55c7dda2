"""COCO's panoptic form: a PNG an image, each of whose pixels names the segment that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_sal.datasets.coco import Named, check_crowd
from lightning_sal.datasets.decoding import DECODER_ERRORS, UnreadableSample, open_image, unreadable
from lightning_sal.datasets.images import fit_masks

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 256**3  # which no pixel can name


@dataclass(frozen=True, slots=True)
class Segments:
    """Some segments of a PNG, each the pixels whose R + 256 G + 256^2 B is its id.

    Args:
        path: The PNG.
        ids: (name for messages, id) of each.
    """

    path: Path
    ids: Sequence[tuple[str, int]]

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        """(I, H, W) bool masks in the frame of the photograph; see `read_mask`.

        Raises:
            UnreadableSample: The file cannot be read, has another shape than the photograph, or lacks a segment.
        """
        try:
            with open_image(self.path) as image:
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")).astype(np.int64), 2, 0)
        except DECODER_ERRORS as error:
            raise unreadable(self.path, error) from error
        codes = red + (green << 8) + (blue << 16)
        masks = codes[None] == np.array([key for _, key in self.ids], dtype=np.int64)[:, None, None]
        for (name, _), mask in zip(self.ids, masks, strict=True):
            if not mask.any():
                raise UnreadableSample(f"{name}: covers no pixel of {self.path}")
        return fit_masks(masks, size, orientation, self.path)


def segments_of(named: Sequence[Named]) -> list[Named]:
    """The segments of panoptic annotations as annotations of their own, with the `file_name` of their PNG.

    Raises:
        ValueError: An annotation names no PNG or no segments.
    """
    found: list[Named] = []
    for name, annotation in named:
        infos, file = annotation.get("segments_info"), annotation.get("file_name")
        if (
            not isinstance(file, str)
            or not isinstance(infos, list)
            or not all(isinstance(each, dict) for each in infos)
        ):
            raise ValueError(f"{name}: no panoptic annotation: it needs `file_name` and `segments_info`")
        for info in infos:
            segment = f"{name}, image {shortened(annotation.get('image_id'))}, segment {shortened(info.get('id'))}"
            check_crowd(segment, info)
            if not isinstance(info.get("id"), int) or not 0 < info["id"] < LARGEST:
                raise ValueError(f"{segment}: its `id` is no whole number from 1 to {LARGEST - 1}")
            found.append((segment, _one(annotation, info, file)))
    return found


def _one(annotation: dict[str, Any], info: dict[str, Any], file: str) -> dict[str, Any]:
    return info | {"image_id": annotation.get("image_id"), "file_name": file}
