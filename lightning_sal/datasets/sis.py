"""Salient instance segmentation on disk: COCO json, or one colour an instance."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_sal.datasets.coco import coco_records
from lightning_sal.datasets.images import read_instances_png
from lightning_sal.datasets.layouts import IMAGE_FOLDER, Candidate, Layout, flat_pairs, subfolders
from lightning_sal.datasets.records import Annotation


def coloured_annotation(path: Path) -> Annotation:
    """Reads a colour-coded mask file as (I, H, W)."""
    return partial(read_instances_png, path)


def _match(place: Path) -> list[Candidate]:
    files = [place] if place.is_file() else sorted(place.glob("*.json"))
    lists = [file for file in files if file.suffix == ".json" and b'"annotations"' in file.read_bytes()]
    found = [_from_json(file) for file in lists]
    return found or flat_pairs(place, "sis", coloured_annotation)


def _from_json(path: Path) -> Candidate:
    where = Candidate(path.name, lambda: [])
    beside = subfolders(path.parent)
    # Splits number their photographs alike, so the folder of another split must not be taken for this one's.
    own = [sub for sub in beside if Candidate(sub.name, where.records).split == where.split]
    ...
