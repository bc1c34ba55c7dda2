"""RefCOCO, RefCOCO+ and RefCOCOg as tables of the hub (Parquet), in the two forms that are common.

- With the images inside: `image`, `answer` (the sentences), `segmentation` (one polygon, or what COCO has) and `bbox` (x, y,
  width, height), as lmms-lab/RefCOCO.
- With the names of COCO's photographs: `sentences`, `raw_anns` (the JSON text of the object's COCO annotation), `image_path`
  and `raw_image_info` (the JSON text of its entry), as jxu124/refcoco. Its column `bbox` is left alone.

Each sentence is a sample. The shards of a split are one dataset, called by what stands before their number: `testA`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_sal.datasets.boxes import Boxes
from lightning_sal.datasets.layouts import Candidate
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.refs import corners, photograph_folders, sentences_of
from lightning_sal.datasets.segmentations import Segmentations, read_frame
from lightning_sal.datasets.spelling import find_files
from lightning_sal.datasets.tables import SUFFIXES, Cell, Row, columns, rows, shards
from lightning_sal.datasets.unions import Union
from lightning_sal.files.reading import parse_object

WITH_IMAGES = ("image", "answer", "segmentation", "bbox")
WITH_NAMES = ("sentences", "raw_anns", "image_path")
MORE = ("question_id", "ref_id", "raw_image_info")


def ref_table_records(paths: Sequence[Path]) -> list[Record]:
    """The samples of the shards of a table; a malformed row becomes a sample that cannot be read.

    Raises:
        ValueError: A file is no table, or there is no pyarrow.
    """
    listed = list(rows(paths, [*WITH_IMAGES[1:], *WITH_NAMES, *MORE]))
    inside = set(WITH_IMAGES) <= columns(paths[0])
    names = [] if inside else [name for row in listed if isinstance(name := row.fields.get("image_path"), str)]
    known = sorted(set(names))
    found = dict(zip(known, find_files(photograph_folders(paths[0].parent), known), strict=True)) if known else {}
    records = []
    for number, row in enumerate(listed, 1):
        name = row.fields.get("ref_id", row.fields.get("question_id"))
        key = f"{number if name is None else name}"
        try:
            if inside:
                photograph, sentences, entry, frame = _inside(row)
            else:
                photograph, sentences, entry, frame = _named(row, found)
            texts = sentences_of(sentences)
        except ValueError as error:
            photographs = (Photograph(row.path, fault=str(error)),)
            records.append(Record(f"row-{number}", "perception", photographs, source=row.source))
            continue
        annotation = Union(Segmentations([("its segmentation", entry.get("segmentation"))], frame, "its segmentation"))
        boxes = (Boxes((corners(entry.get("bbox")),), frame=frame),)
        photographs = (Photograph(photograph.path, annotation, content=photograph.content),)
        for at, text in enumerate(texts, 1):
            of_text = f"{key}.{at}"
            records.append(Record(of_text, "perception", photographs, source=row.source, question=text, boxes=boxes))
    return records


def match(place: Path) -> list[Candidate]:
    """The tables right in a folder, or this one."""
    tables = {".": [place]} if place.is_file() and place.suffix in SUFFIXES else shards(place) if place.is_dir() else {}
    found = {name: paths for name, paths in tables.items() if _is_refs(columns(paths[0]))}
    return [Candidate(name, partial(ref_table_records, paths)) for name, paths in found.items()]


def _is_refs(names: frozenset[str]) -> bool:
    return set(WITH_IMAGES) <= names or set(WITH_NAMES) <= names


def _inside(row: Row) -> tuple[Photograph, Any, dict[str, Any], tuple[int, int] | None]:
    """Photograph, sentences, COCO annotation, (h, w) where it is stated."""
    return (
        Photograph(Path("image"), content=Cell(row.path, "image", row.number)),
        row.fields["answer"],
        row.fields,
        None,
    )


def _named(row: Row, found: dict[str, Path]) -> tuple[Photograph, Any, dict[str, Any], tuple[int, int] | None]:
    """The same of a row that names its photograph."""
    name = row.fields["image_path"]
    if name not in found:
        raise ValueError("`image_path` is not a text")
    texts = {column: row.fields.get(column) for column in ("raw_anns", "raw_image_info")}
    if not isinstance(texts["raw_anns"], str):
        raise ValueError("`raw_anns` is not a text")
    entry = parse_object(texts["raw_anns"])
    image = parse_object(texts["raw_image_info"]) if isinstance(texts["raw_image_info"], str) else {}
    return Photograph(found[name]), row.fields["sentences"], entry, read_frame(image.get("height"), image.get("width"))


LOOKED_FOR = "a Parquet table of RefCOCO with `answer` or `sentences`, such as testA-00000-of-00002.parquet"
