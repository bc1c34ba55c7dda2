"""The one place that walks folders: which files are images, what is passed over, and names however they are spelt."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from lightning_sal.datasets.decoding import PICTURES

LEFT_BEHIND = frozenset({"__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini"})  # macOS, Synology, Windows


def visible(name: str) -> bool:
    """Whether a file or folder is one of the user's: neither hidden nor left behind by a system."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def is_picture(name: str) -> bool:
    """Whether a name is that of an image, of a format that is read or of one that will be named as not read."""
    return visible(name) and Path(name).suffix.lower() in PICTURES


def subfolders(folder: Path) -> list[Path]:
    """The visible folders right below, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if visible(path.name) and path.is_dir())


def nearby_folders(folder: Path) -> list[Path]:
    """A folder and the visible ones up to two below: where the images of a list may lie."""
    below = subfolders(folder)
    return [folder, *below, *(deeper for sub in below for deeper in subfolders(sub))]


def image_files(folder: Path, wanted: Callable[[str], bool] = is_picture) -> list[Path]:
    """The images right below, sorted.

    Args:
        folder: Where they lie; there need be no such folder.
        wanted: Says of a name whether it is that of one.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if wanted(entry.name) and not entry.is_dir())
    return [folder / name for name in names]


def walk(folder: Path, enter: Callable[[Path], bool] = lambda _: True) -> Iterator[tuple[Path, list[str]]]:
    """A folder and all visible ones below it, each with its visible files, sorted.

    Args:
        folder: Where to start, whatever its name.
        enter: Says of a folder below whether it is looked into.
    """
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if visible(name) and enter(Path(place, name)))
        yield Path(place), sorted(filter(visible, names))


def composed(name: str) -> str:
    """A name in the one spelling by which names are compared: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def stem(path: Path) -> str:
    """The name without its suffix, in the spelling by which names are compared."""
    return composed(path.stem)
