"""Salient instance segmentation on disk: COCO json, or one colour an instance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.datasets.coco import coco_records
from lightning_sal.datasets.coco_files import is_coco, photograph_folders
from lightning_sal.datasets.images import read_instances_png
from lightning_sal.datasets.layouts import Candidate, Layout, flat_pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class ColouredFile:
    """One colour-coded mask file, read as (I, H, W)."""

    path: Path

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        return read_instances_png(self.path, size, orientation)


_flat_pairs = partial(flat_pairs, task="sis", annotate=ColouredFile, instances=True)


def _match(place: Path) -> list[Candidate]:
    if place.is_file():
        return [Candidate(".", partial(coco_records, place, photograph_folders(place)))] if is_coco(place) else []
    lists = [file for file in sorted(place.glob("*.[jJ][sS][oO][nN]")) if is_coco(file)]
    found = [Candidate(file.name, partial(coco_records, file, photograph_folders(file))) for file in lists]
    return found or _flat_pairs(place)


LAYOUT = Layout(
    name="sis",
    looked_for=(
        "COCO json with `images` and `annotations`, in a folder annotations or not, beside its photographs or their folder "
        "(images, imgs, train, ...), or an image folder beside a folder of masks with one colour an instance (Instance GT, "
        "gt, mask, ...)"
    ),
    match=_match,
    match_deep=partial(_flat_pairs, deep=True),
)
