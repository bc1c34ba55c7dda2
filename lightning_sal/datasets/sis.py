"""Salient instance segmentation on disk: COCO json, or one colour an instance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from lightning_sal.datasets.coco import coco_records
from lightning_sal.datasets.files import subfolders, visible
from lightning_sal.datasets.images import read_instances_png
from lightning_sal.datasets.layouts import IMAGE_FOLDER, Candidate, Layout, flat_pairs, split_of


@dataclass(frozen=True, slots=True)
class ColouredFile:
    """One colour-coded mask file, read as (I, H, W)."""

    path: Path

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        return read_instances_png(self.path, size, orientation)


_flat_pairs = partial(flat_pairs, task="sis", annotate=ColouredFile, instances=True)


def _match(place: Path) -> list[Candidate]:
    if place.is_file():
        return [Candidate(".", partial(coco_records, place, _photograph_folders(place)))] if _is_coco(place) else []
    lists = [file for file in sorted(place.glob("*.json")) if visible(file.name) and _is_coco(file)]
    found = [Candidate(file.name, partial(coco_records, file, _photograph_folders(file))) for file in lists]
    return found or _flat_pairs(place)


def _is_coco(file: Path) -> bool:
    return file.suffix == ".json" and b'"annotations"' in file.read_bytes()


def _photograph_folders(file: Path) -> list[Path]:
    """Where the photographs of a json may lie: beside it or a folder or two below, but never under another split, since
    splits number their photographs alike."""
    split = split_of(file.name)
    beside = [sub for sub in subfolders(file.parent) if split is None or split_of(sub.name) in (None, split)]
    below = [inner for sub in beside for inner in subfolders(sub) if IMAGE_FOLDER.fullmatch(inner.name.lower())]
    return [file.parent, *beside, *below]


LAYOUT = Layout(
    task="sis",
    looked_for=(
        "COCO json with `images` and `annotations` beside its photographs or their folder (images, imgs, train, ...), "
        "or an image folder beside a folder of masks with one colour an instance (Instance GT, gt, mask, ...)"
    ),
    match=_match,
    match_deep=partial(_flat_pairs, deep=True),
)
