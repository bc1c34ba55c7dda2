"""Tables of samples as hubs and spreadsheets give them: CSV, JSON, JSONL and parquet, row by row.

Rows are counted from 0, as pandas and datasets count them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lightning_sal.errors import UsageError
from lightning_sal.files.reading import parse_object, read_items, read_text

SUFFIXES = frozenset({".csv", ".json", ".jsonl", ".parquet"})
PEEKED = 2**16  # bytes of a file by which its columns are told
MOST_FOOTER = 2**26  # bytes that describe the columns of a parquet file
AT_A_TIME = 64  # rows of a parquet file that are held together, since they may hold images

Row = dict[str, Any]


def columns(path: Path) -> frozenset[str]:
    """The names of a table's columns, or of JSON the keys at the beginning of the file; empty where it is no table.

    Of parquet these are all words that describe the columns, by which no library is needed.
    """
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return frozenset()
    if path.suffix.lower() == ".parquet":
        return frozenset(word.decode() for word in re.findall(rb"[A-Za-z_]\w*", _footer(path)))
    with path.open("rb") as file:
        head = file.read(PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
    if path.suffix.lower() == ".csv":
        return frozenset(name.strip(' "') for name in head.partition(b"\n")[0].decode(errors="replace").split(","))
    return frozenset(key.decode() for key in re.findall(rb'"(\w+)"\s*:', head) if head[:1] in (b"[", b"{"))


def read_rows(path: Path, without: str = "") -> Iterator[tuple[str, Row, str | None]]:
    """The rows of a table, in their order.

    Args:
        path: The table.
        without: A column of parquet that is not read, since it holds images.

    Yields:
        (where it stands, as messages name it; the row, empty where it has a fault; the fault, or None). Values of a CSV are
        texts; what is empty there is None.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such table; the message says why.
        UsageError: Parquet, and pyarrow is not installed.
    """
    readers = {".csv": _csv_rows, ".parquet": partial(_parquet_rows, without=without)}
    rows = readers.get(path.suffix.lower(), _json_rows)
    for number, (row, fault) in enumerate(rows(path)):
        yield f"{path}: row {number}", row, fault


def holds_images(path: Path, column: str) -> bool:
    """Whether a parquet file holds the images themselves in a column, as {bytes, path}."""
    if path.suffix.lower() != ".parquet":
        return False
    schema = _parquet(path).schema_arrow
    kind = schema.field(column).type if column in schema.names else None
    return kind is not None and (str(kind).startswith(("struct<bytes", "binary")) or "bytes: binary" in str(kind))


def _csv_rows(path: Path) -> Iterator[tuple[Row, str | None]]:
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        for row in reader:
            if None in row:
                yield {}, f"{len(row[None])} values more than there are columns"
                continue
            yield {name.strip(): value or None for name, value in row.items()}, None
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[Row, str | None]]:
    for _, item in read_items(path):
        try:
            row = parse_object(item) if isinstance(item, str) else item
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            yield {}, str(error)
            continue
        yield row, None


def _parquet_rows(path: Path, without: str) -> Iterator[tuple[Row, str | None]]:
    file = _parquet(path)
    names = [name for name in file.schema_arrow.names if name != without]
    for batch in file.iter_batches(batch_size=AT_A_TIME, columns=names):
        for row in batch.to_pylist():
            yield row, None


def _parquet(path: Path) -> Any:
    """The opened file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UsageError(f"{path}: parquet needs pyarrow: pip install 'lightning-sal[datasets]'") from None
    try:
        return ParquetFile(path)
    except ArrowException as error:
        raise ValueError(f"{path}: not parquet that can be read: {' '.join(str(error).split())}") from error


def _footer(path: Path) -> bytes:
    """What a parquet file says of its columns, at its end; empty where it is none."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 8))
        end = file.read()
        length = int.from_bytes(end[:4], "little")
        if end[4:] != b"PAR1" or length > min(size - 8, MOST_FOOTER):
            return b""
        file.seek(size - 8 - length)
        return file.read(length)
