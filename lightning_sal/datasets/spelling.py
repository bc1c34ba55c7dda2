"""Files that a list names, found as other systems spell them.

A list that Windows or a Mac wrote, or that has moved, names its files by backslashes, in the other normal form of Unicode
(é as one character or as two), or from a folder that is not here.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

MOST_LEFT_OUT = 32  # folders at the beginning of a name


def find_file(folder: Path, name: str) -> Path | None:
    """The file that a list in `folder` calls so: as it stands, by other separators, or in the other normal form."""
    paths = (folder / text for text in _spellings(name))
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113  which takes any text for a name


def file_of(folder: Path, name: str) -> Path:
    """What `find_file` finds; where it finds nothing the path as it stands, for the message of who opens it."""
    return find_file(folder, name) or folder / name


def find_files(folders: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The files of a list, all of them in one of some folders.

    The folder with most of them is taken, and of equal ones the first. Where all names begin with folders that are not
    here, as many of these are left out as give most; never what tells two names apart.

    Args:
        folders: Where they may lie.
        names: Relative to the folder, or to one that nobody has here.

    Returns:
        A path for each name, which may lead nowhere.
    """
    parts = [name.replace("\\", "/").split("/") for name in names]
    shared = shared_start([each[:-1] for each in parts])
    best, most = [folders[0] / name for name in names], 0
    for left_out in range(min(shared, MOST_LEFT_OUT) + 1):
        tails = ["/".join(each[left_out:]) for each in parts] if left_out else names
        for folder in folders:
            files = [find_file(folder, tail) for tail in tails]
            found = sum(file is not None for file in files)
            if found > most:
                best = [file or folder / tail for file, tail in zip(files, tails, strict=True)]
                most = found
            if most == len(names):
                return best
    return best


def shared_start(paths: Iterable[Sequence[str]]) -> int:
    """How many parts all of some paths have in common from the first on."""
    return sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*paths, strict=False)))


def _spellings(name: str) -> list[str]:
    both = (name, name.replace("\\", "/"))
    return list(
        dict.fromkeys([*both, *(unicodedata.normalize(form, text) for text in both for form in ("NFC", "NFD"))])
    )
