"""Tables with images inside, as the hub and the `datasets` library keep them: Parquet, and Arrow streams.

They are read by pyarrow, which the extra `datasets` brings. The images stay in the file until they are asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.files import visible
from lightning_sal.internals.shell import installing

if TYPE_CHECKING:
    from pyarrow import Table

SUFFIXES = (".parquet", ".arrow")
SHARD = re.compile(r"-\d{5}-of-\d{5}(-\w+)?$")  # train-00003-of-00012-a1b2


@dataclass(frozen=True, slots=True)
class Row:
    """A row without its images.

    Args:
        source: `file: row n`, as messages name it.
        path: The file.
        number: Of the row in its file, from 0.
        fields: Its values by column.
    """

    source: str
    path: Path
    number: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """What gives the bytes of an image in a table.

    Args:
        path: The file.
        column: The column: bytes, or what the `datasets` library calls an image, `bytes` and `path`.
        row: Of the file, from 0.
    """

    path: Path
    column: str
    row: int

    def __call__(self) -> bytes:
        """The bytes.

        Raises:
            UnreadableSample: There are none.
        """
        try:
            table, first = _rows_around(self.path, self.column, self.row)
            value = table.column(self.column)[self.row - first].as_py()
        except (OSError, ValueError, KeyError, IndexError) as error:  # what pyarrow raises of a damaged file
            raise UnreadableSample(f"{self.path}: {' '.join(str(error).split())}") from error
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes) or not content:
            raise UnreadableSample(f"`{self.column}` holds no bytes of an image: {shortened(content)}")
        return content


def shards(folder: Path) -> dict[str, list[Path]]:
    """The tables right in a folder, by their name without the number of the shard."""
    named: dict[str, list[Path]] = {}
    for file in sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}") if visible(path.name)):
        if file.is_file():
            named.setdefault(SHARD.sub("", file.stem), []).append(file)
    return named


def columns(path: Path) -> frozenset[str]:
    """The names of a table's columns; none where the file is no table.

    Raises:
        ValueError: There is no pyarrow.
    """
    try:
        from pyarrow import ArrowInvalid, ipc, memory_map, parquet
    except ImportError as error:
        raise ValueError(f"{path}: tables are read by pyarrow: {installing('datasets')}") from error
    try:
        if path.suffix == ".parquet":
            return frozenset(parquet.read_schema(path).names)
        with memory_map(str(path)) as file, ipc.open_stream(file) as stream:
            return frozenset(stream.schema.names)
    except (ArrowInvalid, OSError):
        return frozenset()


def rows(paths: Sequence[Path], names: Sequence[str]) -> Iterator[Row]:
    """The rows of some tables.

    Args:
        paths: The shards.
        names: The columns that are wanted; those that are not there are left out.

    Raises:
        ValueError: A file is no table, or there is no pyarrow.
    """
    for path in paths:
        wanted = [name for name in names if name in columns(path)]
        try:
            table = _read(path, wanted)
            listed = table.to_pylist()
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
        for number, fields in enumerate(listed):
            yield Row(f"{path}: row {number + 1}", path, number, fields)


def _read(path: Path, names: list[str]) -> Table:
    from pyarrow import ipc, memory_map, parquet

    if path.suffix == ".parquet":
        return parquet.ParquetFile(path, memory_map=True).read(columns=names)
    return ipc.open_stream(memory_map(str(path))).read_all().select(names)


@lru_cache(maxsize=4)
def _opened(path: Path) -> tuple[Any, tuple[int, ...]]:
    """A Parquet file, and the row behind the last of each of its groups."""
    from pyarrow import parquet

    file = parquet.ParquetFile(path, memory_map=True)
    ends, end = [], 0
    for group in range(file.num_row_groups):
        end += file.metadata.row_group(group).num_rows
        ends.append(end)
    return file, tuple(ends)


@lru_cache(maxsize=2)  # samples side by side come from one group, and a group of photographs is no small thing
def _group(path: Path, column: str, group: int) -> Table:
    return _opened(path)[0].read_row_group(group, columns=[column], use_threads=False)  # safe in workers


@lru_cache(maxsize=4)
def _mapped(path: Path, column: str) -> Table:
    return _read(path, [column])


def _rows_around(path: Path, column: str, row: int) -> tuple[Table, int]:
    """Rows of one column that hold a row, and the number of the first of them."""
    if path.suffix != ".parquet":
        return _mapped(path, column), 0
    ends = _opened(path)[1]
    group = bisect_right(ends, row)
    return _group(path, column, group), ends[group - 1] if group else 0
