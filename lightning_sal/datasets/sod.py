"""Salient object detection on disk: one photograph, one mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lightning_sal.datasets.images import read_mask
from lightning_sal.datasets.layouts import Candidate, Layout, flat_pairs


@dataclass(frozen=True, slots=True)
class MaskFile:
    """One mask file, read as (1, H, W)."""

    path: Path

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        return read_mask(self.path, size, orientation)[None]


def _match(folder: Path) -> list[Candidate]:
    return flat_pairs(folder, "sod", MaskFile, shared_folder=True)


LAYOUT = Layout(
    task="sod",
    looked_for=(
        "an image folder (image, images, img, imgs, *-Image) beside a mask folder (mask, masks, gt, gts, binary, "
        "groundtruth, ground_truth_mask, pixelwiseGT*, *-Mask), or jpg and png of one stem in one folder"
    ),
    match=_match,
)
