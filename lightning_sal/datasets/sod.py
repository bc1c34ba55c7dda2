"""Salient object detection on disk: one photograph, one mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.datasets.images import read_mask
from lightning_sal.datasets.layouts import Layout, flat_pairs
from lightning_sal.datasets.pixels import mask_levels

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class MaskFile:
    """One mask file, read as (1, H, W)."""

    path: Path

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        return read_mask(self.path, size, orientation)[None]

    def levels(self, size: tuple[int, int] | None, orientation: int) -> tuple[np.ndarray, int]:
        """The values of the file as they stand, (H, W), and what means 1; see `mask_levels`."""
        return mask_levels(self.path, size, orientation)


_flat_pairs = partial(flat_pairs, task="sod", annotate=MaskFile)


LAYOUT = Layout(
    name="sod",
    looked_for=(
        "an image folder (image, images, img, imgs, *-Image) beside a mask folder (mask, masks, gt, gts, binary, "
        "groundtruth, ground_truth_mask, pixelwiseGT*, *-Mask), with files or folders of the same names in both, or jpg "
        "and png of one stem in one folder"
    ),
    match=partial(_flat_pairs, shared_folder=True),
    match_deep=partial(_flat_pairs, deep=True),
)
