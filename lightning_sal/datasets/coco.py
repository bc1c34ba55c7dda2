"""Instances as COCO json, as annotation tools export it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePath
from reprlib import repr as shortened
from typing import Any

from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.segmentations import Drawing, Segmentations, read_frame
from lightning_sal.datasets.spelling import find_files
from lightning_sal.files.reading import read_json

log = logging.getLogger(__name__)

Entry = dict[str, Any]


def coco_records(path: Path, folders: Sequence[Path]) -> list[Record]:
    """The photographs of a COCO json with their instances.

    Annotations with `iscrowd` = 1 are left out, as in COCO's own evaluation, and a line of the log counts them. Where all
    are marked so, as by tools that export masks, they are the instances, and a line says that.

    Args:
        path: The json. An image without annotations is an empty ground truth; a photograph that it does not list is no
            sample.
        folders: Where the photographs may lie, see `find_files`.

    Raises:
        ValueError: The json is malformed; the message names the place.
    """
    content = read_json(path)
    images = _images(path, _entries(path, content, "images"))
    annotations = _instances(path, _entries(path, content, "annotations"))
    drawings: dict[Any, list[Drawing]] = {key: [] for key in images}
    faults: dict[Any, str] = {}
    seen = set()
    for name, annotation in annotations:
        key = annotation.get("image_id")
        if not isinstance(key, int | float | str):
            raise ValueError(f"{name}: its `image_id` is {shortened(key)}, which is no id")
        if key not in images:
            faults.setdefault(key, f"{name}: belongs to image {shortened(key)}, which the file does not list")
        if "id" in annotation and (key, shortened(annotation["id"])) in seen:
            faults.setdefault(key, f"{name}: comes twice on its image")
        seen.add((key, shortened(annotation.get("id"))))
        drawings.setdefault(key, []).append((name, annotation.get("segmentation")))
    names = [image["file_name"] for image in images.values()]
    files = dict(zip(images, find_files(folders, names), strict=True))
    records = []
    for key, drawn in drawings.items():
        image = images.get(key, {})
        frame = _frame(path, image)
        photo = Photograph(
            files.get(key, path), Segmentations(drawn, frame, f"{path}: image {shortened(key)}", key), faults.get(key)
        )
        name = PurePath(image["file_name"].replace("\\", "/")).with_suffix("").as_posix() if image else f"missing-{key}"
        records.append(Record(name, "sis", (photo,)))
    return records


def _entries(path: Path, content: Any, key: str) -> list[Entry]:
    listed = content.get(key) if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ValueError(f"{path}: not COCO json: `{key}` is no list of objects")
    return listed


def _images(path: Path, listed: list[Entry]) -> dict[Any, Entry]:
    """Id -> image."""
    images: dict[Any, Entry] = {}
    names: dict[PurePath, Any] = {}
    for number, image in enumerate(listed, 1):
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(key, int | float | str) or not isinstance(name, str):
            raise ValueError(f"{path}: image {number} of the list: not COCO json: it needs `id` and `file_name`")
        same = names.setdefault(PurePath(name.replace("\\", "/")), key)
        if not PurePath(name.replace("\\", "/")).name:
            raise ValueError(f"{path}: image {shortened(key)}: {shortened(name)} names no file")
        if key in images:
            raise ValueError(f"{path}: the id {shortened(key)} belongs to several images")
        if same != key:
            raise ValueError(f"{path}: images {shortened(same)} and {shortened(key)} are one file, {shortened(name)}")
        images[key] = image
    return images


def _instances(path: Path, listed: list[Entry]) -> list[tuple[str, Entry]]:
    """(name for messages, annotation) of each instance."""
    named = []
    for number, annotation in enumerate(listed, 1):
        key = annotation.get("id")
        name = f"{path}: annotation {number} of the list" if key is None else f"{path}: annotation {shortened(key)}"
        if (annotation.get("iscrowd") or 0) not in (0, 1):
            raise ValueError(f"{name}: `iscrowd` is {shortened(annotation['iscrowd'])}, where 0 or 1 must stand")
        named.append((name, annotation))
    instances = [(name, annotation) for name, annotation in named if not annotation.get("iscrowd")]
    crowds = len(listed) - len(instances)
    if crowds and not instances:
        log.warning(f"{path}: all {crowds} annotations are marked iscrowd: they are taken for instances")
        return named
    if crowds:
        log.warning(f"{path}: {crowds} of {len(listed)} annotations are marked iscrowd and left out")
    return instances


def _frame(path: Path, image: Entry) -> tuple[int, int] | None:
    stated = image.get("height"), image.get("width")
    if None in stated:
        return None
    if (frame := read_frame(*stated)) is None:
        raise ValueError(
            f"{path}: image {shortened(image['id'])}: {shortened(stated)} is no height and width in pixels"
        )
    return frame
