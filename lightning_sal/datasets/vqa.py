"""Visual question answering on disk, in the field's usual form: records of an image, a question, an answer and boxes.

    {"image": "a.jpg", "question": "What is on the table?", "answer": "a cup", "bboxs": [[12, 40, 96, 131]],
     "width": 640, "height": 480, "dataset": "gqa", "split": "train"}

This is the form of Visual-CoT's metadata (arXiv 2403.16999), as a JSON list or one record a line, beside a folder of images.
The boxes may also be called bboxes, bbox, boxes or box, and be one box, a list of boxes, or the text "[x0, y0, x1, y1]". In
which unit they are must be said: by `"box_unit": "pixels"` or `"normalised"` in the record, or by the name of the file,
`train.pixels.jsonl` or `train.normalised.json`. `width` and `height`, where they are there, must be those of the image.
Other keys are left alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from lightning_sal.datasets.boxes import SLACK, Boxes
from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.files import nearby_folders, visible
from lightning_sal.datasets.jsonl import Converted
from lightning_sal.datasets.layouts import Candidate, Layout
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.segmentations import read_frame
from lightning_sal.datasets.spelling import find_files
from lightning_sal.files.reading import parse_json, read_items

log = logging.getLogger(__name__)

BOXES = ("bboxs", "bboxes", "bbox", "boxes", "box")
UNITS = {"pixels": False, "normalised": True, "normalized": True}  # -> whether boxes are shares of width and height
KEYS = (b'"image"', b'"question"', b'"answer"')
PEEKED = 2**16  # bytes of a file by which its form is told


def vqa_records(path: Path, folders: Sequence[Path] | None = None, normalised: bool | None = None) -> list[Record]:
    """The samples of a file; a malformed record becomes a sample that cannot be read.

    Boxes that stick out of their image by up to 5 % are clipped, and a line of the log counts them as far as the file tells.

    Args:
        path: A JSON list of records, or a JSONL.
        folders: Where the images may lie, see `find_files`; None for the folder of the file and those up to two below.
        normalised: Whether boxes are in shares of width and height, of records that do not say; None for what the name of
            the file says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, holds nothing, or has boxes and says of none of them in which unit they are.
    """
    unit = _unit_of(path) if normalised is None else normalised
    items = [(source, *_parsed(item)) for source, item in read_items(path)]
    if not items:
        raise ValueError(f"{path}: holds no record")
    _require_unit(path, [item for _, item, _ in items], unit)
    named = [item.get("image") if isinstance(item.get("image"), str) else "" for _, item, _ in items]
    places = nearby_folders(path.parent) if folders is None else folders
    found = dict(zip(names := sorted(set(filter(None, named))), find_files(places, names), strict=True))
    records = []
    for number, ((source, item, fault), name) in enumerate(zip(items, named, strict=True), 1):
        key = f"{path.stem}/{number}"
        try:
            if fault:
                raise ValueError(fault)
            fields = _fields(item, unit)
        except ValueError as error:
            records.append(Record(key, "vqa", (Photograph(path, fault=str(error)),), source=source))
            continue
        records.append(Record(key, "vqa", (Photograph(found[name]),), source=source, **fields))
    if clipped := sum(boxes.clipped() for record in records for boxes in record.boxes or ()):
        log.warning(f"{path}: {clipped} boxes stick out of their image by up to {SLACK:.0%} and are clipped to it")
    return records


def from_vqa(path: Path, folder: Path, images: Path | None, normalised: bool | None) -> Iterator[Converted]:
    """The records of a file as lines of our own JSONL, with boxes in pixels; every image is read for that.

    Args:
        path: See `vqa_records`.
        folder: That the result's paths are relative to.
        images: Where the images lie; None as for `vqa_records`.
        normalised: See `vqa_records`.
    """
    for record in vqa_records(path, images and [images], normalised):
        try:
            group = record.read()
        except UnreadableSample as error:
            yield Converted(record.source, fault=str(error).removeprefix(f"{record.source}: "))
            continue
        fields: dict[str, Any] = {"task": record.task, "question": group.question, "reference": group.reference}
        fields["images"] = [
            Path(os.path.relpath(Path(name).resolve(), folder.resolve())).as_posix() for name in group.paths
        ]
        if group.boxes is not None:
            fields["boxes"] = [boxes.tolist() for boxes in group.boxes]
        yield Converted(record.source, fields)


def is_vqa(file: Path) -> bool:
    """Whether a file holds such records, by its beginning."""
    if not visible(file.name) or file.suffix.lower() not in (".json", ".jsonl") or not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
    return head[:1] in (b"[", b"{") and all(key in head for key in KEYS) and b'"annotations"' not in head


def _parsed(item: Any) -> tuple[dict[str, Any], str | None]:
    """(the record, None), or ({}, why there is none)."""
    try:
        item = parse_json(item) if isinstance(item, str) else item
        if not isinstance(item, dict):
            raise ValueError("not an object")
    except ValueError as error:
        return {}, str(error)
    return item, None


def _unit_of(path: Path) -> bool | None:
    """Whether boxes are normalised, as the name of a file says; None where it does not."""
    said = {UNITS[part] for part in path.name.lower().split(".")[1:-1] if part in UNITS}
    return said.pop() if len(said) == 1 else None


def _require_unit(path: Path, items: Sequence[dict[str, Any]], unit: bool | None) -> None:
    with_boxes = [item for item in items if any(name in item for name in BOXES)]
    if with_boxes and unit is None and not any("box_unit" in item for item in with_boxes):
        renamed = " or ".join(f"{path.stem}.{word}{path.suffix}" for word in ("pixels", "normalised"))
        raise ValueError(f"{path}: nothing says whether its boxes are in pixels or normalised: name it {renamed}")


def _fields(item: dict[str, Any], unit: bool | None) -> dict[str, Any]:
    """What a record says beside its image, as `Record` takes it.

    Raises:
        ValueError: It lacks something, or something is not as it should be.
    """
    answer = item.get("answer")
    number = isinstance(answer, int | float) and not isinstance(answer, bool)
    texts = {"image": item.get("image"), "question": item.get("question"), "answer": str(answer) if number else answer}
    if faults := [name for name, text in texts.items() if not isinstance(text, str) or not text.strip()]:
        raise ValueError(f"`{faults[0]}` is not a text")
    fields = {"question": item["question"].strip(), "reference": str(answer).strip()}
    given = [name for name in BOXES if name in item]
    if len(given) > 1:
        raise ValueError(f"both `{given[0]}` and `{given[1]}`: keep one of them")
    return fields | ({"boxes": (_boxes(item, given[0], unit),)} if given else {})


def _boxes(item: dict[str, Any], name: str, unit: bool | None) -> Boxes:
    said = item.get("box_unit")
    if said is not None and (not isinstance(said, str) or said.lower() not in UNITS):
        raise ValueError(f"`box_unit` is {shortened(said)}, where pixels or normalised must stand")
    normalised = unit if said is None else UNITS[said.lower()]
    if normalised is None:
        raise ValueError("nothing says whether its boxes are in pixels or normalised: give `box_unit`")
    if unit not in (None, normalised):
        raise ValueError(f"`box_unit` is {said}, and the file is said to be otherwise")
    frame = None
    if "width" in item or "height" in item:
        frame = read_frame(item.get("height"), item.get("width"))
        if frame is None:
            raise ValueError("`width` and `height` are not those of an image")
    rows = _rows(name, item[name])
    boxes = Boxes(tuple(rows), normalised, frame)
    if faults := list(boxes.faults()):
        raise ValueError(f"`{name}`: {'; '.join(faults)}")
    return boxes


def _rows(name: str, value: Any) -> list[Any]:
    """The boxes of a value that is one, its text, or a list of either."""
    if isinstance(value, str):
        value = parse_json(value)
    if isinstance(value, list) and value and not any(isinstance(each, list | str) for each in value):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(f"`{name}` holds no box")
    return [row for each in value for row in (_rows(name, each) if isinstance(each, str) else [each])]


def _match(place: Path) -> list[Candidate]:
    if place.is_file():
        return [Candidate(".", partial(vqa_records, place))] if is_vqa(place) else []
    files = [*place.glob("*.[jJ][sS][oO][nN]"), *place.glob("*.[jJ][sS][oO][nN][lL]")]
    return [Candidate(file.name, partial(vqa_records, file)) for file in sorted(filter(is_vqa, files))]


LAYOUT = Layout(
    name="vqa",
    looked_for=(
        "a JSON list or a JSONL of records with `image`, `question`, `answer` and boxes in pixels or normalised, such as "
        "train.pixels.jsonl, beside its images or their folder"
    ),
    match=_match,
)
