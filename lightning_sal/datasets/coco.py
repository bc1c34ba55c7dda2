"""COCO json, as annotation tools export it: its images, instances and categories, and the instances as samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePath
from reprlib import repr as shortened
from typing import Any

from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.segmentations import Segmentations, read_frame
from lightning_sal.datasets.spelling import find_files
from lightning_sal.files.reading import read_json

log = logging.getLogger(__name__)

Entry = dict[str, Any]
Named = tuple[str, Entry]  # (name for messages, annotation)


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
    images = read_images(path, content)
    annotations, faults = by_image(images, _instances(path, read_annotations(path, content)))
    files = find_photographs(images, folders)
    records = []
    for key, listed in annotations.items():
        image = images.get(key, {})
        frame = stated_frame(path, image)
        drawn = [(name, annotation.get("segmentation")) for name, annotation in listed]
        photo = Photograph(
            files.get(key, path), Segmentations(drawn, frame, f"{path}: image {shortened(key)}", key), faults.get(key)
        )
        records.append(Record(name_of(image, key), "sis", (photo,)))
    return records


def read_images(path: Path, content: Any) -> dict[Any, Entry]:
    """Id -> image.

    Raises:
        ValueError: One has no id or file, or shares it with another.
    """
    images: dict[Any, Entry] = {}
    names: dict[PurePath, Any] = {}
    for number, image in enumerate(_entries(path, content, "images"), 1):
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


def read_annotations(path: Path, content: Any) -> list[Named]:
    """(name for messages, annotation) of each, crowds among them.

    Raises:
        ValueError: There is no list of them, or `iscrowd` is neither 0 nor 1.
    """
    named = []
    for number, annotation in enumerate(_entries(path, content, "annotations"), 1):
        key = annotation.get("id")
        name = f"{path}: annotation {number} of the list" if key is None else f"{path}: annotation {shortened(key)}"
        check_crowd(name, annotation)
        named.append((name, annotation))
    return named


def check_crowd(name: str, annotation: Entry) -> None:
    """Raises ValueError where `iscrowd` is neither 0 nor 1."""
    if (annotation.get("iscrowd") or 0) not in (0, 1):
        raise ValueError(f"{name}: `iscrowd` is {shortened(annotation['iscrowd'])}, where 0 or 1 must stand")


def read_categories(path: Path, content: Any) -> dict[Any, str]:
    """Id -> name, as it stands.

    Raises:
        ValueError: There is no list of them, one has no id or name, or shares it with another.
    """
    names: dict[Any, str] = {}
    for number, category in enumerate(_entries(path, content, "categories"), 1):
        key, name = category.get("id"), category.get("name")
        if not isinstance(key, int | float | str) or not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}: category {number} of the list: it needs `id` and `name`")
        if key in names or name.strip() in names.values():
            raise ValueError(f"{path}: category {number} of the list: {shortened(name)} or its id is that of another")
        names[key] = name.strip()
    return names


def category_of(name: str, annotation: Entry, categories: dict[Any, str]) -> str:
    """The name of an annotation's category.

    Raises:
        ValueError: The file lists none such.
    """
    key = annotation.get("category_id")
    if not isinstance(key, int | float | str) or key not in categories:
        raise ValueError(f"{name}: its `category_id` is {shortened(key)}, which the file does not list")
    return categories[key]


def by_image(images: dict[Any, Entry], named: Sequence[Named]) -> tuple[dict[Any, list[Named]], dict[Any, str]]:
    """(Id of an image -> its annotations, id -> why they cannot be used).

    Ids that the file does not list stand behind those of the images, each with its fault.

    Raises:
        ValueError: An annotation has no id of an image.
    """
    annotations: dict[Any, list[Named]] = {key: [] for key in images}
    faults: dict[Any, str] = {}
    seen = set()
    for name, annotation in named:
        key = annotation.get("image_id")
        if not isinstance(key, int | float | str):
            raise ValueError(f"{name}: its `image_id` is {shortened(key)}, which is no id")
        if key not in images:
            faults.setdefault(key, f"{name}: belongs to image {shortened(key)}, which the file does not list")
        if "id" in annotation and (key, shortened(annotation["id"])) in seen:
            faults.setdefault(key, f"{name}: comes twice on its image")
        seen.add((key, shortened(annotation.get("id"))))
        annotations.setdefault(key, []).append((name, annotation))
    return annotations, faults


def find_photographs(images: dict[Any, Entry], folders: Sequence[Path]) -> dict[Any, Path]:
    """Id -> photograph, which may lead nowhere; see `find_files`."""
    return dict(zip(images, find_files(folders, [image["file_name"] for image in images.values()]), strict=True))


def name_of(image: Entry, key: Any) -> str:
    """What a sample of an image is called: its file without suffix; of an image that is not listed, by its id."""
    return PurePath(image["file_name"].replace("\\", "/")).with_suffix("").as_posix() if image else f"missing-{key}"


def stated_frame(path: Path, image: Entry) -> tuple[int, int] | None:
    """(h, w) that the list states for an image, or None.

    Raises:
        ValueError: These are no sizes.
    """
    stated = image.get("height"), image.get("width")
    if None in stated:
        return None
    if (frame := read_frame(*stated)) is None:
        raise ValueError(
            f"{path}: image {shortened(image['id'])}: {shortened(stated)} is no height and width in pixels"
        )
    return frame


def without_crowds(path: Path, named: list[Named]) -> list[Named]:
    """Those that are not marked iscrowd; a line of the log counts the others."""
    instances = [(name, annotation) for name, annotation in named if not annotation.get("iscrowd")]
    if crowds := len(named) - len(instances):
        log.warning(f"{path}: {crowds} of {len(named)} annotations are marked iscrowd and left out")
    return instances


def _entries(path: Path, content: Any, key: str) -> list[Entry]:
    listed = content.get(key) if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ValueError(f"{path}: not COCO json: `{key}` is no list of objects")
    return listed


def _instances(path: Path, named: list[Named]) -> list[Named]:
    """Those that are not marked iscrowd, or all where all are."""
    if named and all(annotation.get("iscrowd") for _, annotation in named):
        log.warning(f"{path}: all {len(named)} annotations are marked iscrowd: they are taken for instances")
        return named
    return without_crowds(path, named)
