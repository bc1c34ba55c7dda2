"""Questions with boxes and points, in the form that VisionReasoner and Dr. Seg train on: problem, image, solution.

    {"id": "7", "problem": "the red mug", "image": "a.jpg", "img_height": 480, "img_width": 640,
     "solution": "[{\\"bbox_2d\\": [12, 40, 96, 131], \\"point_2d\\": [50, 88]}]"}

As a JSON list, one record a line, or a Parquet or Arrow table with the images inside. `solution` is the JSON text of a list
with one entry an object, and `[]` where nothing fits. Its numbers are in pixels of the image squashed to a square, 840 in
the published sets, or in pixels of the image itself. Which of the two must be said: by the name of the file,
`train.840.json` or `train.pixels.json`, or the name that the published sets end in, `..._840`, of the file or a folder up to
two above; or in the record, `"box_unit": 840` or `"pixels"`. `img_height` and `img_width`, where they are there, are those
of the photograph before it was squashed. Other keys are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from lightning_sal.datasets.boxes import Boxes, Points
from lightning_sal.datasets.files import nearby_folders, visible
from lightning_sal.datasets.layouts import Candidate
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.segmentations import read_frame
from lightning_sal.datasets.spelling import find_files
from lightning_sal.datasets.tables import SUFFIXES, Cell, columns, rows, shards
from lightning_sal.files.reading import parse_json, read_items

LISTS = (".json", ".jsonl")
KEYS = ("problem", "solution", "image")
COLUMNS = ("id", "problem", "solution", "img_height", "img_width", "box_unit")
PEEKED = 2**16  # bytes of a file by which its form is told
SIDES = range(28, 10_000)  # of a square that an image may be squashed to, in pixels
PUBLISHED = "_840"  # ends the names of the published sets: the side of their square

Unit = int | None  # side of the square, or None for pixels of the image itself


@dataclass(frozen=True, slots=True)
class _Item:
    """A record as it was read: where it stands, its fields or why there are none, and its image where that lies inside."""

    source: str
    fields: dict[str, Any]
    fault: str | None = None
    content: Cell | None = None


def vision_reasoner_records(
    paths: Sequence[Path], folders: Sequence[Path] | None = None, unit: str | None = None
) -> list[Record]:
    """The samples of a list or of the shards of a table; a malformed record becomes a sample that cannot be read.

    Args:
        paths: The one list, or the shards.
        folders: Where the images of a list may lie, see `find_files`; None for the folder of the list and those up to two
            below.
        unit: "pixels", or the side of the square as text, of records that do not say; None for what the names say.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none, holds nothing, or says of no record in what its numbers are; or `unit` is none.
    """
    path = paths[0]
    said = _named(path) if unit is None else (_unit(unit),)
    items = list(_tables(paths) if path.suffix in SUFFIXES else _listed(path))
    if not items:
        raise ValueError(f"{path}: holds no record")
    if not said and not any("box_unit" in item.fields for item in items):
        renamed = " or ".join(f"{path.stem}.{word}{path.suffix}" for word in ("840", "pixels"))
        raise ValueError(
            f"{path}: nothing says whether `solution` is in pixels of the image, or of the image squashed to a square and "
            f"to which: name it {renamed}"
        )
    names = [name if isinstance(name := item.fields.get("image"), str) else "" for item in items]
    places = nearby_folders(path.parent) if folders is None else folders
    found = dict(zip(known := sorted(set(filter(None, names))), find_files(places, known), strict=True))
    records: list[Record] = []
    seen: dict[tuple[str, str], str] = {}
    for number, (item, name) in enumerate(zip(items, names, strict=True), 1):
        key = f"{path.stem}/{number}"
        try:
            if item.fault:
                raise ValueError(item.fault)
            fields = _fields(item.fields, said)
            if not name and item.content is None:
                raise ValueError("`image` is not the name of a file")
            _check_twice(item, seen)
        except ValueError as error:
            records.append(Record(key, "perception", (Photograph(path, fault=str(error)),), source=item.source))
            continue
        photograph = Photograph(found.get(name, Path("image")), content=item.content)
        records.append(Record(key, "perception", (photograph,), source=item.source, **fields))
    return records


def match(place: Path) -> list[Candidate]:
    """The datasets that lie so right in a folder, or are this file."""
    if place.is_file():
        found = {"": [place]} if _is_list(place) or _is_table(place) else {}
    else:
        files = sorted(path for path in place.iterdir() if _is_list(path))
        tables = {name: paths for name, paths in shards(place).items() if _is_table(paths[0])}
        found = {file.name: [file] for file in files} | tables
    return [Candidate(name or ".", partial(vision_reasoner_records, paths)) for name, paths in found.items()]


def is_vision_reasoner(file: Path) -> bool:
    """Whether a file is a list or a table of such records, by its beginning."""
    return _is_list(file) or _is_table(file)


def _is_list(file: Path) -> bool:
    if not visible(file.name) or file.suffix.lower() not in LISTS or not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head[:1] in (b"[", b"{") and all(b'"%s"' % key.encode() in head for key in KEYS)


def _is_table(file: Path) -> bool:
    return file.suffix in SUFFIXES and set(KEYS) <= columns(file)


def _listed(path: Path) -> Iterator[_Item]:
    for source, item in read_items(path):
        try:
            fields = parse_json(item) if isinstance(item, str) else item
            if not isinstance(fields, dict):
                raise ValueError("not an object")
        except ValueError as error:
            yield _Item(source, {}, str(error))
        else:
            yield _Item(source, fields)


def _tables(paths: Sequence[Path]) -> Iterator[_Item]:
    for row in rows(paths, COLUMNS):
        fields = {name: value for name, value in row.fields.items() if value is not None}
        yield _Item(row.source, fields, content=Cell(row.path, "image", row.number))


def _named(path: Path) -> tuple[Unit, ...]:
    """(what the names say,), or () where they say nothing or two things."""
    parts = [part for part in path.name.lower().split(".")[1:-1] if part == "pixels" or part.isdecimal()]
    if parts:
        return (_unit(parts[0]),) if len(parts) == 1 else ()
    names = [path.stem, *(folder.name for folder in list(path.absolute().parents)[:2])]
    return (840,) if any(name.endswith(PUBLISHED) for name in names) else ()


def _unit(value: Any) -> Unit:
    """Side of the square, or None for pixels.

    Raises:
        ValueError: It is neither.
    """
    if value == "pixels":
        return None
    side = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 6 else value
    if not isinstance(side, int) or isinstance(side, bool) or side not in SIDES:
        raise ValueError(f"{shortened(value)} is no unit: pixels, or the side of the square as 840, must stand")
    return side


def _fields(item: dict[str, Any], said: tuple[Unit, ...]) -> dict[str, Any]:
    """What a record says beside its image, as `Record` takes it."""
    problem = item.get("problem")
    if not isinstance(problem, str) or not problem.strip():
        raise ValueError("`problem` is not a text")
    units = (*said, *((_unit(item["box_unit"]),) if "box_unit" in item else ()))
    if not units:
        raise ValueError("nothing says in what `solution` is: give `box_unit`, pixels or the side of the square as 840")
    if len(set(units)) > 1:
        raise ValueError(f"`box_unit` is {shortened(item['box_unit'])}, and the file is said to be otherwise")
    extent = None if units[0] is None else (units[0], units[0])
    boxes, points = _solution(item.get("solution"))
    fields: dict[str, Any] = {"question": problem.strip()}
    fields["boxes"] = (Boxes(boxes, frame=_frame(item), extent=extent),)
    return fields | ({"points": (Points(points, extent),)} if points or not boxes else {})


def _solution(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The boxes, and the points where there are any: then one of each an object."""
    try:
        objects = parse_json(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"`solution`: {error}") from error
    if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
        raise ValueError(f"`solution` is not a list of objects: {shortened(value)}")
    for name in ("bbox_2d", "point_2d"):
        lacking = [number for number, each in enumerate(objects, 1) if name not in each]
        if lacking and (name == "bbox_2d" or len(lacking) < len(objects)):
            raise ValueError(f"`solution`: object {lacking[0]} has no `{name}`")
    boxes = tuple(each["bbox_2d"] for each in objects)
    return boxes, tuple(each["point_2d"] for each in objects if "point_2d" in each)


def _frame(item: dict[str, Any]) -> tuple[int, int] | None:
    """(H, W) of the photograph, where the record states it."""
    if "img_height" not in item and "img_width" not in item:
        return None
    if (frame := read_frame(item.get("img_height"), item.get("img_width"))) is None:
        raise ValueError("`img_height` and `img_width` are not those of an image")
    return frame


def _check_twice(item: _Item, seen: dict[tuple[str, str], str]) -> None:
    """Raises ValueError where two records have one id and one question."""
    same = shortened(item.fields.get("id")), item.fields["problem"]
    if "id" in item.fields and (first := seen.setdefault(same, item.source)) != item.source:
        raise ValueError(f"the same `id` and `problem` as {first}")


LOOKED_FOR = (
    "a JSON list, a JSONL or a table (Parquet, Arrow) of records with `problem`, `image` and `solution`, such as "
    "train.840.jsonl"
)
