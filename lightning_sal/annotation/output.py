"""The two files of a run: accepted lines, and rejected ones with their reason; every sample is in one of them at most.

A line is appended in one piece and synced before the next, so a run may be killed at any moment: the next one cuts off an
unfinished last line and goes on. Two runs cannot write to the same files at once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from lightning_sal.annotation.samples import IDENTITY, Sample, key_of
from lightning_sal.files.reading import parse_json, parse_object
from lightning_sal.files.writing import naming

BEGINNING = b'{"task": '  # of each line


class Output:
    """Where annotated samples go.

    Args:
        path: The SFT JSONL; the rejected lines stand beside it, `sft.rejected.jsonl` for `sft.jsonl`.
        retry_rejected: Whether rejected samples are to be asked again; their lines stay until there are new ones.

    Raises:
        ValueError: A file holds a line of another kind; nothing is changed then.
        BlockingIOError: Another run writes to it.
    """

    def __init__(self, path: Path, *, retry_rejected: bool = False) -> None:
        self.path, self.rejected_path = path, rejected_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise BlockingIOError(f"{path}: another run is writing to it; wait for its end") from error
        files = (self.path, self.rejected_path)
        self.accepted, self.rejected = (set(_read(file)) for file in files)
        for file in files:
            _mend(file)
        self._compact()
        self.done = self.accepted if retry_rejected else self.accepted | self.rejected

    def accept(self, sample: Sample, response: str) -> None:
        """Adds a line to the SFT JSONL."""
        _append(self._file, sample.fields | {"response": response})
        self.accepted.add(sample.key)

    def reject(self, sample: Sample, reason: str, answers: list[str]) -> None:
        """Adds a line to the rejected ones.

        Args:
            sample: The sample.
            reason: `kind: detail`.
            answers: All that the model wrote about it.
        """
        with self.rejected_path.open("ab", buffering=0) as file:
            _append(file, sample.fields | {"reason": reason, "answers": answers})
        self.rejected.add(sample.key)

    def close(self) -> None:
        """Lets others write; of samples that were asked again the new line alone remains."""
        self._compact()
        self._file.close()

    def _compact(self) -> None:
        """Leaves of the rejected lines the last one of a sample, and none of a sample that is accepted."""
        lines = _read(self.rejected_path)
        kept = {key: line for key, line in lines.items() if key not in self.accepted}
        self.rejected = set(kept)
        if not self.rejected_path.exists() or len(kept) == self.rejected_path.read_bytes().count(b"\n"):
            return
        new = self.rejected_path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(b"".join(kept.values()))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.rejected_path)


def rejected_path(path: Path) -> Path:
    """Where the rejected lines of an SFT JSONL stand."""
    return path.with_suffix(f".rejected{path.suffix}")


def done_keys(path: Path, *, retry_rejected: bool = False) -> set[str]:
    """Keys of the samples that need no asking; nothing is opened for writing."""
    accepted, rejected = (set(_read(file)) for file in (path, rejected_path(path)))
    return accepted if retry_rejected else accepted | rejected


def _read(path: Path) -> dict[str, bytes]:
    """Key of a sample -> its last line; an unfinished line at the end of the file is passed over.

    Raises:
        ValueError: The file holds a line of another kind.
    """
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else (b"",)
    if rest and not _is_torn(rest):
        lines.append(rest)
    return {_key(line, f"{path}:{number}"): line + b"\n" for number, line in enumerate(lines, 1)}


def _mend(path: Path) -> None:
    """Cuts an unfinished line off the end of a file, and ends a last line that lacks nothing else."""
    rest = path.read_bytes().rpartition(b"\n")[2] if path.exists() else b""
    if _is_torn(rest):
        os.truncate(path, path.stat().st_size - len(rest))
    elif rest:
        with path.open("ab") as file:
            file.write(b"\n")


def _is_torn(line: bytes) -> bool:
    """Whether it is the beginning of a line of ours, and not the whole of one."""
    try:
        parse_json(line.decode())
    except ValueError:
        return bool(line) and BEGINNING.startswith(line[: len(BEGINNING)])
    return False


def _key(line: bytes, place: str) -> str:
    try:
        fields = parse_object(line.decode("utf-8-sig"))
        if not ({"response", "reason"} & set(fields) and {*IDENTITY[:2]} <= set(fields)):
            raise ValueError("not an annotated sample")
    except ValueError as error:
        raise ValueError(f"{place}: {error}; name another file, or mend this line") from None
    return key_of(fields)


def _append(file: FileIO, fields: Mapping[str, Any]) -> None:
    line, path = json.dumps(fields).encode() + b"\n", Path(str(file.name))
    with naming(path.parent, path.name):
        if file.write(line) != len(line):  # what is there of it is cut off when the same command is run again
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
