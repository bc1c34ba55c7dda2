"""Detection on disk: COCO json with categories, a sample for each image and each category that occurs on it.

The question is "all " and the category's name as it stands: no plural is made, and the name is what follows the first word.
A photograph on which nothing is annotated has no sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from reprlib import repr as shortened

from lightning_sal.datasets.boxes import Boxes, is_number
from lightning_sal.datasets.coco import (
    Named,
    by_image,
    category_of,
    find_photographs,
    name_of,
    read_annotations,
    read_categories,
    read_images,
    stated_frame,
    without_crowds,
)
from lightning_sal.datasets.coco_files import is_coco, photograph_folders
from lightning_sal.datasets.jsonl import Converted
from lightning_sal.datasets.layouts import Candidate, Layout
from lightning_sal.datasets.lines import to_lines
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.files.reading import read_json

ALL = "all "  # what stands before a category's name in a question


def detection_records(path: Path, folders: Sequence[Path]) -> list[Record]:
    """The boxes of a COCO json by image and category.

    Boxes x, y, width, height become x0, y0, x1, y1 in pixels of the original. Annotations with `iscrowd` = 1 are left out,
    and a line of the log counts them.

    Args:
        path: The json.
        folders: Where the photographs may lie, see `find_files`.

    Raises:
        ValueError: The json is malformed, or two categories have one name; the message names the place.
    """
    content = read_json(path)
    images, categories = read_images(path, content), read_categories(path, content)
    annotations, faults = by_image(images, without_crowds(path, read_annotations(path, content)))
    files = find_photographs(images, folders)
    records = []
    for key, listed in annotations.items():
        image = images.get(key, {})
        frame, stem, place = stated_frame(path, image), name_of(image, key), f"{path}: image {shortened(key)}"
        groups: dict[str, list[Named]] = {}
        for name, annotation in listed:
            groups.setdefault(category_of(name, annotation, categories), []).append((name, annotation))
        for category, group in groups.items():
            fault, boxes = faults.get(key), None
            try:
                boxes = (Boxes(tuple(_corners(*each) for each in group), frame=frame),)
            except ValueError as error:
                fault = fault or str(error)
            photo = Photograph(files.get(key, path), fault=fault)
            source, question = f"{place}, {category}", f"{ALL}{category}"
            record = Record(f"{stem}/{category}", "detection", (photo,), source=source, question=question, boxes=boxes)
            records.append(record)
    return records


def from_detection(path: Path, folder: Path, images: Path | None) -> Iterator[Converted]:
    """The samples of a COCO json as lines of our own JSONL.

    Args:
        path: The json.
        folder: That the result's paths are relative to.
        images: Where the photographs lie; None for where they are found around the json.
    """
    return to_lines(detection_records(path, [images] if images else photograph_folders(path)), folder)


def _corners(name: str, annotation: dict) -> list[float]:
    """x0, y0, x1, y1 of an annotation.

    Raises:
        ValueError: Its `bbox` is none.
    """
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f"{name}: `bbox` is {shortened(box)}, where x, y, width, height must stand")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _match(place: Path) -> list[Candidate]:
    if place.is_file():
        return [Candidate(".", partial(detection_records, place, photograph_folders(place)))] if is_coco(place) else []
    files = [file for file in sorted(place.glob("*.[jJ][sS][oO][nN]")) if is_coco(file)]
    return [Candidate(file.name, partial(detection_records, file, photograph_folders(file))) for file in files]


LAYOUT = Layout(
    name="detection",
    looked_for=(
        "COCO json with `images`, `categories` and `annotations` with `bbox`, such as annotations/instances_val2017.json"
    ),
    match=_match,
    by_name=True,
)
