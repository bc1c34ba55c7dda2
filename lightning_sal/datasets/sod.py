"""Salient object detection on disk: one photograph, one mask."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from lightning_sal.datasets.images import read_mask
from lightning_sal.datasets.layouts import Candidate, Layout, flat_pairs
from lightning_sal.datasets.records import Annotation


def mask_annotation(path: Path) -> Annotation:
    """Reads one mask file as (1, H, W)."""
    return partial(_read_one, path)


def _read_one(path: Path, size: tuple[int, int] | None, orientation: int) -> Tensor:
    return read_mask(path, size, orientation)[None]


def _match(folder: Path) -> list[Candidate]:
    return flat_pairs(folder, "sod", mask_annotation, shared_folder=True)


LAYOUT = Layout(
    task="sod",
    looked_for=(
        "an image folder (image, images, img, imgs, *-Image) beside a mask folder (mask, masks, gt, gts, binary, "
        "groundtruth, ground_truth_mask, pixelwiseGT*, *-Mask), or jpg and png of one stem in one folder"
    ),
    match=_match,
)
