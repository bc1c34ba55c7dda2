"""What other methods answer to questions about objects, as files: boxes, points, numbers and masks, a sample at a time.

A JSONL has a line a sample, which is named by its key, or by its image and question; the question may be left out where its
image has one alone:

    {"image": "a.jpg", "question": "the red cup", "boxes": [[10, 20, 64, 80]], "scores": [0.9]}
    {"key": "refs/12", "boxes": [], "mask": "12.png"}
    {"key": "refs/13", "boxes": null}

`boxes` are x0, y0, x1, y1 in pixels of the image; `[]` says that there is nothing, null that no answer could be read.
`points` (x, y), as many, and `scores`, any numbers, may stand beside them; `count` in their place tells a number alone.
`mask` is an image beside the JSONL. Lines of `PredictionWriter` are read as well. COCO results list {"image_id", "bbox",
"score"}, with a `category_id` where the truth is a COCO json, and a `segmentation` if they have masks; an image without any
is answered by nothing. In a folder there is a mask for each sample, called by its key or by its image.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

from lightning_sal.datasets.boxes import is_number
from lightning_sal.datasets.coco import read_categories, read_images
from lightning_sal.datasets.detection import ALL
from lightning_sal.datasets.files import composed, is_picture, walk
from lightning_sal.datasets.images import read_mask
from lightning_sal.datasets.layouts import contents
from lightning_sal.datasets.records import Record
from lightning_sal.datasets.segmentations import Drawing, Segmentations
from lightning_sal.files.reading import parse_object, read_json, read_text
from lightning_sal.tasks.boxes import Objects, numbers

log = logging.getLogger(__name__)

MaskReader = Callable[[tuple[int, int]], Tensor]  # (H, W) of the image -> (1, H, W) bool


@dataclass(frozen=True, slots=True)
class ObjectPrediction:
    """What a method answers to a sample.

    Args:
        answer: Its objects; None where it gives masks alone.
        scores: (M,) float64, one an object; None where it gives none.
        mask: Gives the mask; None where there is none.
    """

    answer: Objects | None = None
    scores: Tensor | None = None
    mask: MaskReader | None = None


@dataclass(slots=True)
class Samples:
    """The samples of a benchmark, found by what a prediction calls them.

    Args:
        records: The samples, each with a key of its own.
        benchmark: Name of the benchmark, which may stand before a key.
    """

    records: Sequence[Record]
    benchmark: str
    by_key: dict[str, str] = field(init=False)
    by_image: dict[str, list[Record]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_key = {name: r.key for r in self.records for name in (r.key, f"{self.benchmark}/{r.key}")}
        self.by_image = {}
        for record in self.records:
            file = record.photographs[0].path
            for name in {composed(file.name), composed(file.stem)}:
                self.by_image.setdefault(name, []).append(record)

    def of_image(self, image: str) -> list[Record]:
        """Those of an image: of several files of one name those whose path ends as this one does."""
        path = PurePath(image.replace("\\", "/"))
        found = self.by_image.get(composed(path.name)) or self.by_image.get(composed(path.stem), [])
        exact = [record for record in found if record.photographs[0].path.parts[-len(path.parts) :] == path.parts]
        return exact or found

    def find(self, place: str, key: Any = None, image: Any = None, question: Any = None) -> str:
        """The key of the one sample that is meant.

        Args:
            place: Names the prediction in messages.
            key: Its key, or None.
            image: Name of its image, or None.
            question: Its question, or None.

        Raises:
            ValueError: There is none, or more than one.
        """
        if isinstance(key, str) and key in self.by_key:
            return self.by_key[key]
        found = self.of_image(image) if isinstance(image, str) else []
        if isinstance(question, str):
            found = [record for record in found if _plain(record.question) == _plain(question)]
        if len(found) != 1:
            named = ", ".join(f"{name} {shortened(value)}" for name, value in _given(key, image, question))
            raise ValueError(
                f"{place}: {len(found)} samples are called {named or 'nothing'}: give `key`, or `image` and `question`"
            )
        return found[0].key


def object_predictions(
    path: Path, truth: Path, records: Sequence[Record], benchmark: str
) -> dict[str, ObjectPrediction]:
    """Key of a sample -> what is answered to it.

    Args:
        path: A JSONL, COCO results (json), a folder that `PredictionWriter` has written, or a folder of masks.
        truth: The ground truth; where it is a COCO json, its ids of images and categories are those of COCO results.
        records: The samples.
        benchmark: Name of the benchmark, by which the lines of `PredictionWriter` are chosen that name one.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The path holds nothing of the kind, a sample that is not known, or two answers to one.
    """
    samples = Samples(records, benchmark)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if (path / "predictions.jsonl").is_file():
        path = path / "predictions.jsonl"
    if path.is_dir():
        return _unique(_mask_of(path, file, samples) for file in _pictures(path))
    if path.suffix.lower() == ".jsonl":
        return _unique(_lines(path, samples))
    return _coco_results(path, truth, samples)


def _lines(path: Path, samples: Samples) -> Iterator[tuple[str, str, ObjectPrediction]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        place = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            fields = parse_object(line)
            prediction = _prediction(path.parent, fields)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        if fields.get("benchmark") in (None, "", samples.benchmark):
            image = fields.get("image") or next(iter(fields.get("images") or []), None)
            yield place, samples.find(place, fields.get("key"), image, fields.get("question")), prediction


def _prediction(folder: Path, fields: Mapping[str, Any]) -> ObjectPrediction:
    """What a line answers.

    Raises:
        ValueError: It answers nothing, or something is not as the head of this file says.
    """
    masks = fields.get("masks") or [[]]
    files = [fields["mask"]] if "mask" in fields else masks[0] if isinstance(masks, list) else None
    if not isinstance(files, list) or not all(isinstance(file, str) and "\0" not in file for file in files):
        raise ValueError(f"`mask` is {shortened(files)}, where the name of a file must stand")
    mask = partial(_union_of_files, [folder / file for file in files]) if files else None
    if "count" in fields:
        count = fields["count"]
        if not is_number(count) or count < 0 or count % 1:
            raise ValueError(f"`count` is {shortened(count)}, where a whole number from 0 on must stand")
        return ObjectPrediction(Objects((None,) * int(count), (None,) * int(count)), None, mask)
    if "boxes" not in fields and mask is None:
        raise ValueError("none of `boxes`, `count` and `mask` is there")
    if "boxes" not in fields:
        return ObjectPrediction(mask=mask)
    if fields["boxes"] is None:
        return ObjectPrediction(Objects(readable=False, reason="unreadable"), None, mask)
    boxes = _places("boxes", fields["boxes"], 4)
    points = _places("points", fields.get("points") or [None] * len(boxes), 2)
    if len(points) != len(boxes):
        raise ValueError(f"{len(points)} points for {len(boxes)} boxes")
    return ObjectPrediction(Objects(boxes, points), _scores(fields.get("scores"), len(boxes)), mask)


def _places(name: str, rows: Any, length: int) -> tuple[tuple[float, ...] | None, ...]:
    """Boxes or points, None for null."""
    found = tuple(None if row is None else numbers(row, length) for row in rows) if isinstance(rows, list) else None
    if found is None or any(place is None and row is not None for row, place in zip(rows, found, strict=True)):
        raise ValueError(f"`{name}` is {shortened(rows)}, where a list must stand, {length} numbers or null each")
    return found


def _scores(values: Any, count: int) -> Tensor | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != count or not all(map(is_number, values)):
        raise ValueError(f"`scores` is {shortened(values)}, where {count} numbers must stand, one a box")
    return torch.tensor(values, dtype=torch.float64)


def _coco_results(path: Path, truth: Path, samples: Samples) -> dict[str, ObjectPrediction]:
    results = read_json(path)
    if not isinstance(results, list):
        raise ValueError(f"{path}: not COCO results: no list of them")
    images, categories = _coco_names(truth)
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {record.key: [] for record in samples.records}
    unasked = 0
    for number, result in enumerate(results, 1):
        place = f"{path}: result {number}"
        if not isinstance(result, dict) or not is_number(result.get("score")):
            raise ValueError(f"{place}: not COCO results: no object with a `score` that is a number")
        name, category = str(result.get("image_id")), categories.get(result.get("category_id"))
        question = category and f"{ALL}{category}"
        asked = samples.of_image(images.get(result.get("image_id"), name))
        if question and asked and all(_plain(record.question) != _plain(question) for record in asked):
            unasked += 1
            continue
        key = samples.find(place, name, images.get(result.get("image_id"), name), question)
        found[key].append((place, result))
    if unasked:
        log.warning(
            f"{path}: left out {unasked} of {len(results)} results, of categories that nothing asks for on their image"
        )
    return {key: _of_results(listed) for key, listed in found.items()}


def _coco_names(truth: Path) -> tuple[dict[Any, str], dict[Any, str]]:
    """Id -> file of the images, and id -> name of the categories, of a truth that is a COCO json; else none."""
    if truth.suffix.lower() != ".json" or not isinstance(content := read_json(truth), dict) or "images" not in content:
        return {}, {}
    images = {key: image["file_name"] for key, image in read_images(truth, content).items()}
    return images, dict(read_categories(truth, content)) if "categories" in content else {}


def _of_results(listed: Sequence[tuple[str, dict[str, Any]]]) -> ObjectPrediction:
    """The answer that COCO results of one sample make."""
    boxes = []
    for place, result in listed:
        box = numbers(result.get("bbox"), 4)
        if box is None or not all(map(math.isfinite, box)):
            raise ValueError(
                f"{place}: `bbox` is {shortened(result.get('bbox'))}, where x, y, width, height must stand"
            )
        boxes.append((box[0], box[1], box[0] + box[2], box[1] + box[3]))
    scores = torch.tensor([float(result["score"]) for _, result in listed], dtype=torch.float64)
    drawings = [(place, result["segmentation"]) for place, result in listed if "segmentation" in result]
    mask = partial(_union_of_drawings, drawings) if drawings else None
    return ObjectPrediction(Objects(tuple(boxes), (None,) * len(boxes)), scores, mask)


def _mask_of(folder: Path, file: Path, samples: Samples) -> tuple[str, str, ObjectPrediction]:
    name = file.relative_to(folder).with_suffix("").as_posix()
    key = samples.find(str(file), composed(name), composed(name))
    return str(file), key, ObjectPrediction(mask=partial(_union_of_files, [file]))


def _pictures(folder: Path) -> list[Path]:
    found = [place / name for place, names in walk(folder) for name in names if is_picture(name)]
    if not found:
        raise ValueError(f"{folder}: no predictions; looked for masks or predictions.jsonl; found {contents(folder)}")
    return found


def _unique(found: Iterable[tuple[str, str, ObjectPrediction]]) -> dict[str, ObjectPrediction]:
    """Key -> prediction, of (place, key, prediction).

    Raises:
        ValueError: A sample has two; the line names the second.
    """
    places: dict[str, str] = {}
    predictions = {}
    for place, key, prediction in found:
        if (first := places.setdefault(key, place)) != place:
            raise ValueError(f"{place}: a second answer to {key!r}, after {first}: keep one")
        predictions[key] = prediction
    return predictions


def _union_of_files(files: Sequence[Path], size: tuple[int, int]) -> Tensor:
    masks = [read_mask(file, size) for file in files]
    return torch.stack(masks).any(0, keepdim=True) if masks else torch.zeros(1, *size, dtype=torch.bool)


def _union_of_drawings(drawings: Sequence[Drawing], size: tuple[int, int]) -> Tensor:
    return Segmentations(drawings, predicted=True)(size, 1).any(0, keepdim=True)


def _plain(question: str) -> str:
    return " ".join(question.lower().split()).rstrip("?.! ")


def _given(key: Any, image: Any, question: Any) -> list[tuple[str, Any]]:
    named = (("key", key), ("image", image), ("question", question))
    return [(name, value) for name, value in named if value is not None]
