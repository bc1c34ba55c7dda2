"""Counting on disk: tables with the image, the count, and what is counted, such as PixMo-Count and CountBench.

    image_url, image_sha256, count, points, label      PixMo-Count (arXiv 2409.17146)
    image, image_url, number, text, question           CountBench (arXiv 2302.12066) with CountBenchQA's questions

They are CSV, JSON, JSONL, or Parquet and Arrow with or without the images inside. The question is "all " and the `label`
as it stands; without a label it is `question`, or, beside a `count`, `text`: of "How many dogs are there in the park?" it is
"all dogs in the park", and what does not begin with "how many" stays as it is. CountBench's own `text` is a caption that
states the number, so that it is never the question. `points`, {"x": [...], "y": [...]} or a list of {"x", "y"}, are in
pixels of the image; an empty list beside a count means that they are not known.

Nothing is downloaded. Images that are not inside lie beside the table or in a folder up to two below it, under the name in
`image` or `file_name`, under `image_sha256`, under the last part of `image_url`, or under the number of their row, which the
`datasets` library counts from 0; the one of these by which most are found is taken for all.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from reprlib import repr as shortened
from typing import Any
from urllib.parse import unquote

from lightning_sal.datasets.boxes import Points, is_number
from lightning_sal.datasets.detection import ALL
from lightning_sal.datasets.files import composed, is_picture, nearby_folders, visible
from lightning_sal.datasets.jsonl import Converted
from lightning_sal.datasets.layouts import Candidate, Layout
from lightning_sal.datasets.lines import to_lines
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.rows import LISTS, TABLES, columns, read_rows
from lightning_sal.datasets.spelling import find_files
from lightning_sal.datasets.tables import Cell, shards
from lightning_sal.files.reading import parse_json

COLUMNS = ("count", "number", "label", "question", "text", "points", "file_name", "image_sha256", "image_url")
IMAGES = ("image", "file_name", "image_sha256", "image_url")  # columns that tell which image is meant
HOW_MANY = re.compile(r"how\s+many\s+", re.IGNORECASE)
BE = re.compile(r"\s+(?:is|are)(?:\s+there)?(?=\s|$)", re.IGNORECASE)
SHOWN = 100  # characters of a name that is not there
WHOLE = re.compile(r"\d{1,9}(?:\.0*)?")


Fields = dict[str, Any]  # of a row, by column


def counting_records(paths: Sequence[Path], folders: Sequence[Path] | None = None) -> list[Record]:
    """The samples of a list or of the shards of a table; a malformed row becomes a sample that cannot be read.

    Args:
        paths: The one list, or the shards.
        folders: Where images that are not inside may lie; None for the folder of the table and those up to two below.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such table, has captions in place of questions, or its images are numbered from 1.
    """
    path, inside = paths[0], holds_images(paths[0])
    rows = list(read_rows(paths, COLUMNS))
    if not rows:
        raise ValueError(f"{path}: holds no row")
    if not any(_question(row.fields) for row, _ in rows) and any(row.fields.get("text") for row, _ in rows):
        raise ValueError(
            f"{path}: its `text` is a caption that states the number: add a column `question`, as CountBenchQA has it, "
            "or `label`"
        )
    places = nearby_folders(path.parent) if folders is None else folders
    files = [None] * len(rows) if inside else _find([row.fields for row, _ in rows], places, path)
    records = []
    for number, ((row, fault), file) in enumerate(zip(rows, files, strict=True)):
        fields: dict[str, Any] = {}
        try:
            if fault:
                raise ValueError(fault)
            fields = _fields(row.fields)
            if isinstance(file, str):
                raise ValueError(file)
        except ValueError as error:
            fault = str(error)
        cell = Cell(row.path, "image", row.number) if inside else None
        photo = Photograph(file if isinstance(file, Path) else Path("image"), fault=fault, content=cell)
        records.append(Record(f"{path.stem}/{number}", "counting", (photo,), source=row.source, **fields))
    return records


def from_counting(path: Path, folder: Path, images: Path | None, unpacked: Path) -> Iterator[Converted]:
    """The samples of a table as lines of our own JSONL.

    Args:
        path: The table.
        folder: That the result's paths are relative to.
        images: Where the images lie; None as for `counting_records`.
        unpacked: As for `to_lines`.
    """
    return to_lines(counting_records([path], images and [images]), folder, unpacked)


def holds_images(path: Path) -> bool:
    """Whether a file is a table with the images inside, in its column `image`."""
    return path.suffix.lower() in TABLES and "image" in columns(path)


def is_counting(file: Path) -> bool:
    """Whether a file is such a table, by its columns."""
    if not visible(file.name):
        return False
    names = columns(file)  # of JSON also of what lies within its objects
    counted = {"count", "number"} & names and {"label", "question", "text"} & names
    return bool(counted and names.intersection(IMAGES)) and "annotations" not in names


def _fields(row: Fields) -> dict[str, Any]:
    """What a row says beside its image, as `Record` takes it.

    Raises:
        ValueError: It lacks something, or something is not as it should be.
    """
    name = "number" if row.get("count") is None and "number" in row else "count"
    if (count := _whole(row.get(name))) is None:
        raise ValueError(f"`{name}` is {shortened(row.get(name))}, where a whole number from 0 on must stand")
    if not (question := _question(row)):
        raise ValueError("neither `label` nor `question` says what is counted")
    points = _points(row.get("points"))
    if points is not None and len(points.rows) != count:
        raise ValueError(f"`{name}` is {count}, and `points` are {len(points.rows)}")
    return {"question": question, "reference": str(count)} | ({"points": (points,)} if points is not None else {})


def _question(row: Fields) -> str | None:
    """What follows "find"; None where the row does not say it."""
    label = row.get("label")
    if isinstance(label, str) and label.strip():
        return f"{ALL}{label.strip()}"
    asked = row.get("question") or (row.get("text") if row.get("count") is not None else None)
    if not isinstance(asked, str) or not asked.strip():
        return None
    if (many := HOW_MANY.match(asked.strip())) is None:
        return asked.strip()
    return f"{ALL}{BE.sub('', asked.strip()[many.end() :].rstrip('?.! '), count=1)}"


def _whole(value: Any) -> int | None:
    """A count; None where it is none. Tables that have gaps elsewhere write 3.0 for 3."""
    if isinstance(value, str):
        return int(float(value)) if WHOLE.fullmatch(value.strip()) else None
    return int(value) if is_number(value) and value >= 0 and value == int(value) else None


def _points(value: Any) -> Points | None:
    """The points; None where none are given.

    Raises:
        ValueError: They are no points.
    """
    points = parse_json(value) if isinstance(value, str) else value
    if isinstance(points, dict):
        x, y = points.get("x"), points.get("y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            raise ValueError(f"`points` is {shortened(value)}, where as many x as y must stand")
        points = [{"x": each, "y": other} for each, other in zip(x, y, strict=True)]
    if not points:
        return None
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise ValueError(f"`points` is {shortened(value)}, where a list of x and y must stand")
    listed = Points(tuple([point.get("x"), point.get("y")] for point in points))
    if faults := list(listed.faults()):
        raise ValueError(f"`points`: {'; '.join(faults)}")
    return listed


def _file_name(row: Fields) -> str | None:
    name = row.get("image") or row.get("file_name")
    name = name.get("path") if isinstance(name, dict) else name
    return name if isinstance(name, str) and "://" not in name else None


def _digest(row: Fields) -> str | None:
    return row["image_sha256"] if isinstance(row.get("image_sha256"), str) else None


def _ends(rows: Sequence[Fields]) -> list[str | None]:
    """The last part of each address, where it is that of one address alone: many end alike, as in image.jpg."""
    urls = [row["image_url"] if isinstance(row.get("image_url"), str) else "" for row in rows]
    ends = [PurePosixPath(unquote(re.sub(r"^\w+:|[?#].*", "", url, flags=re.DOTALL))).name for url in urls]
    shared = {end for end, count in Counter(end for end, _ in {*zip(ends, urls, strict=True)}).items() if count > 1}
    return [end if end and end not in shared else None for end in ends]


def _find(rows: Sequence[Fields], folders: Sequence[Path], table: Path) -> list[Path | str]:
    """The image of each row, or one line that says what is missing."""
    listed = [_file_name(row) for row in rows]
    numbers = [str(number) for number in range(len(rows))]
    wanted = (listed, [_digest(row) for row in rows], _ends(rows), numbers)
    names = sorted({name for name in listed if name})
    places = zip(names, find_files(folders, names), strict=True)
    there = {name: place for name, place in places if os.path.isfile(place)}  # noqa: PTH113  which takes any text for a name
    ways = [(listed, [there.get(name) if name else None for name in listed])]
    for index in map(_index, folders):
        ways += [(names, [index.get(composed(name)) if name else None for name in names]) for names in wanted[1:]]
    names, found = max(ways, key=lambda way: sum(file is not None for file in way[1]))
    last = next((file for file in found if file), table).parent
    if names is numbers and found[0] is None and str(len(rows)) in _index(last):
        raise ValueError(f"{table}: its images in {last} are numbered from 1, and rows are counted from 0: rename them")
    said = "its image is not there: put it beside the table, or into a folder there, named"
    asked = [dict.fromkeys(name[:SHOWN] for each in wanted if (name := each[at])) for at in range(len(rows))]
    return [file or f"{said} {' or '.join(names)}" for file, names in zip(found, asked, strict=True)]


def _index(folder: Path) -> dict[str, Path]:
    """Name, name without suffix, and of numbers without zeros before them -> the file right in a folder."""
    index: dict[str, Path] = {}
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [
        each
        for each in entries
        if visible(each.name) and each.suffix.lower() not in (*LISTS, *TABLES) and each.is_file()
    ]
    for file in files:
        index[composed(file.name)] = file
    for file in files:
        stem = file.stem if is_picture(file.name) else file.name
        index.setdefault(composed(stem), file)
        if stem.isdecimal():
            index.setdefault(str(int(stem)), file)
    return index


def _match(place: Path) -> list[Candidate]:
    if place.is_file():
        found = {".": [place]} if is_counting(place) else {}
    else:
        lists = [file for file in sorted(place.iterdir()) if file.suffix.lower() in LISTS and is_counting(file)]
        tables = {name: paths for name, paths in shards(place).items() if is_counting(paths[0])}
        found = {file.name: [file] for file in lists} | tables
    return [Candidate(name, partial(counting_records, paths)) for name, paths in found.items()]


LAYOUT = Layout(
    name="counting",
    looked_for=(
        "a table (CSV, JSON, JSONL, parquet) with `count` or `number`, `label` or `question`, and `image`, "
        "`image_sha256` or `image_url`, beside its images or their folder"
    ),
    match=_match,
)
