"""Co-salient object detection on disk: groups of photographs that share an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lightning_sal.datasets.endless import permutation
from lightning_sal.datasets.files import composed, image_files, subfolders
from lightning_sal.datasets.layouts import (
    MASK_FOLDER,
    SPLIT,
    Candidate,
    Layout,
    folders_alike,
    named_pairs,
    parallel_folders,
)
from lightning_sal.datasets.records import Record
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.datasets.stems import match_stems
from lightning_sal.samples import ImageGroup


def chunks(records: Sequence[Record], group_size: int) -> list[Record]:
    """Every image once: each group cut into consecutive parts of at most K images and nearly equal size.

    Nearly equal, because 9 images as 8 + 1 would leave one alone, without anything to be co-salient with. For the same
    reason an odd group at K = 2 has one part of 3.

    Args:
        records: One record a group; records of one photograph stay as they are.
        group_size: K >= 2.
    """
    parts = []
    for record in records:
        size = len(record.photographs)
        count = max(1, min(-(-size // group_size), size // 2))
        for number, indices in enumerate(np.array_split(np.arange(size), count)):
            part = record.select([int(index) for index in indices])
            parts.append(record if size == 1 else replace(part, key=f"{record.key}/{number}"))
    return parts


class GroupDraws:
    """An endless dataset: each epoch visits every group once, in a new order, with K other images of it.

    Sample i is a pure function of the arguments and i.

    Args:
        records: One record a group; groups of fewer than K images, or of one photograph (SOD, SIS), give all.
        group_size: K >= 1.
        seed: Seed of the order and of the images, >= 0.
    """

    endless = True

    def __init__(self, records: Sequence[Record], group_size: int, seed: int) -> None:
        self.records, self.group_size, self.seed = records, group_size, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> ImageGroup:
        epoch, place = divmod(index, len(self.records))
        record = self.records[permutation(self.seed, epoch, len(self.records))[place]]
        size = len(record.photographs)
        if size == 1:
            return record.read()
        drawn = np.random.default_rng((self.seed, index)).permutation(size)[: self.group_size]
        return replace(record.select(drawn.tolist()), key=f"{record.key}/{index}").read()


def _match(folder: Path) -> list[Candidate]:
    roots = [(i, m) for i, m in parallel_folders(folder) if _holds_groups(i) and _holds_groups(m)]
    if roots:
        return named_pairs(roots, folder, _candidate)
    nested = [(sub, mask) for sub in subfolders(folder) if image_files(sub) and (mask := _mask_folder_in(sub))]
    return [Candidate(".", partial(_nested, nested))] if nested else []


def _match_deep(folder: Path) -> list[Candidate]:
    pairs = [pair for i, m in parallel_folders(folder) for pair in folders_alike(i, m, _holds_groups)]
    return named_pairs(pairs, folder, _candidate)


def _candidate(where: str, images: Path, masks: Path) -> Candidate:
    return Candidate(where, partial(_parallel, images, masks), folders=(images, masks))


def _parallel(images: Path, masks: Path) -> list[Record]:
    sides = [{composed(sub.name): sub for sub in subfolders(root)} for root in (images, masks)]
    records = [_record(name, *(side.get(name, root / name) for side, root in zip(sides, (images, masks), strict=True)))
               for name in sorted({*sides[0], *sides[1]})]  # fmt: skip
    return [record for record in records if record.photographs]


def _nested(groups: list[tuple[Path, Path]]) -> list[Record]:
    return [_record(folder.name, folder, masks) for folder, masks in groups]


def _record(name: str, images: Path, masks: Path) -> Record:
    photographs = match_stems(image_files(images), image_files(masks), MaskFile)
    return Record(name, "cosod", tuple(photo for photos in photographs.values() for photo in photos))


def _holds_groups(folder: Path) -> bool:
    """Whether images lie in the folders right below; those of splits, of another task, are no groups."""
    groups = [sub for sub in subfolders(folder) if image_files(sub)]
    return any(not SPLIT.fullmatch(group.name.lower()) for group in groups)


def _mask_folder_in(group: Path) -> Path | None:
    return next(
        (sub for sub in subfolders(group) if MASK_FOLDER.fullmatch(sub.name.lower()) and image_files(sub)), None
    )


LAYOUT = Layout(
    name="cosod",
    looked_for=(
        "an image root (image, images, img) beside a mask root (binary, groundtruth, gt, gts, mask, masks), one folder "
        "a group below both, or group folders of images with such a mask folder inside"
    ),
    match=_match,
    match_deep=_match_deep,
)
