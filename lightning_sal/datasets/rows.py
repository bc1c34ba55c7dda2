"""Rows of samples as spreadsheets and hubs give them: CSV, JSON, JSONL, and the tables that pyarrow reads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_sal.datasets.tables import SUFFIXES as TABLES
from lightning_sal.datasets.tables import Row, rows
from lightning_sal.datasets.tables import columns as table_columns
from lightning_sal.files.reading import parse_object, read_items, read_text

LISTS = (".csv", ".json", ".jsonl")
PEEKED = 2**16  # bytes of a list by which its columns are told


def columns(path: Path) -> frozenset[str]:
    """The names of a file's columns, or of JSON the keys at its beginning; none where it is no list and no table.

    Raises:
        ValueError: It is a table, and there is no pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES and path.is_file():
        return table_columns(path)
    if suffix not in LISTS or not path.is_file():
        return frozenset()
    with path.open("rb") as file:
        head = file.read(PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
    if suffix == ".csv":
        return frozenset(name.strip(' "\r') for name in head.partition(b"\n")[0].decode(errors="replace").split(","))
    return frozenset(key.decode() for key in re.findall(rb'"(\w+)"\s*:', head) if head[:1] in (b"[", b"{"))


def read_rows(paths: Sequence[Path], names: Sequence[str]) -> Iterator[tuple[Row, str | None]]:
    """The rows of a list, or of the shards of a table, in their order.

    Args:
        paths: The one list, or the shards.
        names: The columns of a table that are wanted; of a list there are all.

    Yields:
        (the row, and why it is malformed or None). Values of a CSV are texts, and None where there is none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no list and no table that can be read, or there is no pyarrow.
    """
    path = paths[0]
    if path.suffix.lower() in TABLES:
        yield from ((row, None) for row in rows(paths, names))
        return
    listed = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    for number, (fields, fault) in enumerate(listed):
        yield Row(f"{path}: row {number + 1}", path, number, fields), fault


def _csv_rows(path: Path) -> Iterator[tuple[dict[str, Any], str | None]]:
    reader = csv.DictReader(io.StringIO(read_text(path)), restkey="", strict=True)
    try:
        for row in reader:
            if more := row.pop("", None):
                yield {}, f"{len(more)} values more than there are columns"
                continue
            yield {name.strip(): value or None for name, value in row.items()}, None
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.reader.line_num}: not CSV: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[dict[str, Any], str | None]]:
    for _, item in read_items(path):
        try:
            row = parse_object(item) if isinstance(item, str) else item
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            yield {}, str(error)
            continue
        yield row, None
