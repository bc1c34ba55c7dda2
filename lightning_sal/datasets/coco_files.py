"""Where the files of a COCO json lie: which json is one, and the folders of its photographs."""

from __future__ import annotations

import re
from pathlib import Path

from lightning_sal.datasets.files import subfolders, visible
from lightning_sal.datasets.layouts import IMAGE_FOLDER, MASK_FOLDER, split_of

ANNOTATION_FOLDER = re.compile(r"(|.*[-_ ])(annotations?|anns?|labels?|jsons?)")
HERE = ("", "..")  # names of folders that do not tell what they are called
UTF16 = ("utf-16-le", "utf-16-be")  # not read, but told from what is no list of annotations


def is_coco(file: Path) -> bool:
    """Whether a file lists annotations, and not COCO's captions or panoptic segments."""
    if not visible(file.name) or file.suffix.lower() != ".json" or not file.is_file():
        return False
    content = file.read_bytes()
    listed = b'"annotations"' in content or any('"annotations"'.encode(code) in content for code in UTF16)
    return listed and b'"caption"' not in content and b'"segments_info"' not in content


def photograph_folders(file: Path) -> list[Path]:
    """Where the photographs of a json may lie: beside it, or a folder or two below; from a folder of annotations, also
    beside that. Never under another split, since splits number their photographs alike, nor among masks."""
    place, split = file.parent, split_of(file.name)
    if split_of(place.name) and _is_named(ANNOTATION_FOLDER, _above(place)):  # annotations/train/instances.json
        place, split = _above(place), split or split_of(place.name)
    roots = [file.parent, *([_above(place)] if _is_named(ANNOTATION_FOLDER, place) else [])]

    def below(folder: Path) -> list[Path]:
        subs = [sub for sub in subfolders(folder) if split is None or split_of(sub.name) in (None, split)]
        return [sub for sub in subs if not _is_named(MASK_FOLDER, sub)]

    def likely(folder: Path) -> bool:
        return _is_named(IMAGE_FOLDER, folder) or split_of(folder.name) is not None

    beside = [sub for root in roots for sub in below(root)]
    inner = [deeper for sub in beside for deeper in below(sub) if likely(sub) or likely(deeper)]
    return [*roots, *filter(likely, beside), *inner, *(sub for sub in beside if not likely(sub))]


def _is_named(pattern: re.Pattern[str], folder: Path) -> bool:
    name = folder.name if folder.name not in HERE else folder.resolve().name
    return pattern.fullmatch(name.lower()) is not None


def _above(folder: Path) -> Path:
    return folder.parent if folder.name not in HERE else folder / ".."
