"""Photographs without ground truth, as people name them: files, folders and patterns, into groups of files."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lightning_sal.datasets.decoding import PICTURES, SUFFIXES, UnreadableSample, open_image
from lightning_sal.datasets.files import LEFT_BEHIND, is_picture, walk
from lightning_sal.datasets.images import read_image
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task

ANSWERS = "segment.json"  # in a folder that `lightning-sal segment` writes to


def find_groups(paths: Iterable[str], task: str) -> list[tuple[str, ...]]:
    """The files of each image group that some paths name, each file once.

    Args:
        paths: Files; folders, whose images are taken with those of all folders below, but for hidden ones and for answers
            of `lightning-sal segment`; and patterns such as `photos/**/*.jpg`. Images of a format that cannot be read are
            taken too, so that they are named where they are read.
        task: sod, sis or cosod. For CoSOD, each folder that holds images is a group, and so are all files named
            singly, or by patterns, together; otherwise each file is.

    Raises:
        FileNotFoundError: A path is not there, or a pattern fits nothing.
        ValueError: The task is unknown, or there is no image in what is named.
    """
    several = get_task(task).several
    paths = list(paths)
    places = [place for path in paths for place in _expanded(path)]
    found = [(place.is_dir(), _below(place) if place.is_dir() else [place]) for place in places]
    if several:
        groups = [
            list(of_folder) for is_folder, files in found if is_folder for _, of_folder in groupby(files, _parent)
        ]
        named = [file for is_folder, files in found if not is_folder for file in files]
        groups = [named, *groups] if named else groups
    else:
        groups = [[file] for _, files in found for file in files]
    if not groups:
        raise ValueError(f"{', '.join(paths) or 'no path'}: there is no image there ({', '.join(sorted(SUFFIXES))})")
    return list(dict.fromkeys(tuple(dict.fromkeys(map(str, group))) for group in groups))


def check_group(files: Sequence[str], task: str) -> None:
    """Check that a task is asked about as many images as it takes.

    Raises:
        ValueError: It is not, or the task is unknown.
    """
    several = get_task(task).several
    if (len(files) > 1) != several:
        wanted = "a group of at least 2 images" if several else "one image"
        raise ValueError(f"{', '.join(files) or 'no file'}: {task} needs {wanted}, and {len(files)} given")


def check_formats(groups: Iterable[Sequence[str]]) -> None:
    """Check that no file is of a format that is known not to be read, before any is.

    Raises:
        UnreadableSample: One is.
    """
    for file in (file for files in groups for file in files):
        if Path(file).suffix.lower() in PICTURES - SUFFIXES:
            open_image(file).close()  # which says why, or finds another format behind the name


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
    check_group(files, task)
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
        raise FileNotFoundError(f"{path}: there is no such image file or folder")
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    places = [Path(place) for place in found if LEFT_BEHIND.isdisjoint(Path(place.lower()).parts)]
    if not places:
        raise FileNotFoundError(f"{path}: no file or folder fits this pattern")
    return places


def _parent(file: Path) -> Path:
    return file.parent


def _below(folder: Path) -> list[Path]:
    """The image files in a folder and all below it, folder by folder; what is hidden, and answers, are left out."""
    own = walk(folder, lambda place: not (place / ANSWERS).exists())
    return [place / name for place, names in own for name in names if is_picture(name)]
