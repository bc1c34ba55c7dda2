"""Files that are there whole or not at all, and one line where the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TextIO

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside `path` for a file or a folder, which takes that name once it is whole.

    Where writing fails, nothing of it is left, and what had the name before keeps it.

    Args:
        path: The final name; its folder is there.

    Raises:
        OSError: The disk is full: one line that names the folder and what was being written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with naming(path.parent, path.name):
            yield part
            if part.is_dir() and path.is_dir():  # a folder takes the name of an empty one alone
                shutil.rmtree(path)
            part.replace(path)
    except BaseException:
        _remove(part)
        raise


@contextmanager
def appending(path: Path, errors: str = "replace") -> Iterator[TextIO]:
    """A text file whose end is written to; where that fails, it is as long as it was.

    Args:
        path: Of the file; its folder is there.
        errors: What becomes of what UTF-8 has no sign for, as `open` takes it.

    Raises:
        OSError: As for `whole`.
    """
    length = path.stat().st_size if path.exists() else None
    try:
        with naming(path.parent, path.name), path.open("a", encoding="utf-8", errors=errors, newline="") as file:
            yield file
    except BaseException:
        if length is None:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, length)
        raise


@contextmanager
def naming(folder: Path, what: str) -> Iterator[None]:
    """Inside, a full disk is one line that names the folder and what was being written.

    Args:
        folder: Where it is written.
        what: Such as the name of the file.

    Raises:
        OSError: In place of what the system, torch or safetensors say of it.
    """
    try:
        yield
    except Exception as error:  # each library has an error of its own for it, and some hide the system's beneath
        if not is_full(error):
            raise
        line = f"the disk is full: {what} was being written, and is not kept; make room there, or write elsewhere"
        raise OSError(errno.ENOSPC, line, str(folder)) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, says that no space is left."""
    while error is not None:
        if any(os.strerror(code) in str(error) for code in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


def numbered(stem: str) -> Iterator[str]:
    """The stem, then the stem and a number from 2."""
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))
