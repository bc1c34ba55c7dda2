"""Photographs without ground truth, as people name them: files, folders and patterns, into groups of files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lightning_sal.datasets.images import SUFFIXES, UnreadableSample, read_image
from lightning_sal.datasets.jsonl import GROUP_TASKS
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task


def find_groups(paths: Iterable[str], task: str) -> list[tuple[str, ...]]:
    """The files of each image group that some paths name, each file once.

    Args:
        paths: Files; folders, whose images are taken with those of all folders below, hidden ones left out; and patterns
            such as `photos/**/*.jpg`.
        task: sod, sis or cosod. For CoSOD, each folder that holds images is a group, and so are all files named
            singly, or by patterns, together; otherwise each file is.

    Raises:
        FileNotFoundError: A path is not there, or a pattern fits nothing.
        ValueError: The task is unknown, or there is no image in what is named.
    """
    get_task(task)
    paths = list(paths)
    named, folders = [], []
    for path in paths:
        for place in _expanded(path):
            if place.is_dir():
                folders.append(_below(place))
            else:
                named.append(place)
                folders.append([place])
    if task in GROUP_TASKS:
        groups = [tuple(dict.fromkeys(map(str, named)))] if named else []
        for files in folders:
            by_folder = groupby((file for file in files if file not in set(named)), key=lambda file: file.parent)
            groups += [tuple(map(str, of_folder)) for _, of_folder in by_folder]
    else:
        groups = [(str(file),) for files in folders for file in files]
    if not groups:
        raise ValueError(f"{', '.join(paths)}: there is no image there ({', '.join(sorted(SUFFIXES))})")
    return list(dict.fromkeys(groups))


def read_group(files: Sequence[str], task: str, key: str = "") -> ImageGroup:
    """The image group of some files.

    Args:
        files: One, or for CoSOD two or more.
        task: sod, sis or cosod.
        key: Of the group; by default its first file.

    Raises:
        UnreadableSample: If files cannot be read, each of which is named in the one line.
        ValueError: If the task is unknown or asks for another number of images.
    """
    get_task(task)
    if (len(files) > 1) != (task in GROUP_TASKS):
        wanted = "two or more images that belong together" if task in GROUP_TASKS else "one image"
        raise ValueError(f"{', '.join(files) or 'no file'}: {task} asks for {wanted}, not {len(files)}")
    images, faults = [], []
    for file in files:
        try:
            images.append(read_image(file))
        except UnreadableSample as error:
            faults.append(str(error))
    if faults:
        raise UnreadableSample("; ".join(faults))
    return ImageGroup(key or files[0], task, tuple(images), paths=tuple(files))


def _expanded(path: str) -> list[Path]:
    if Path(path).exists():
        return [Path(path)]
    if not glob.has_magic(path):
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    if not found:
        raise FileNotFoundError(f"{path}: no file or folder fits this pattern")
    return [Path(place) for place in found]


def _below(folder: Path) -> list[Path]:
    """The image files in a folder and all below it, folder by folder; what is hidden is left out."""
    files = []
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(place, name) for name in sorted(names) if _is_image(name)]
    return files


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
