"""Predictions of any method as files: saliency maps, and instances."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any

from lightning_sal.datasets.files import image_files, subfolders
from lightning_sal.datasets.images import read_instances_png, read_orientation
from lightning_sal.datasets.layouts import contents
from lightning_sal.datasets.records import Photograph
from lightning_sal.datasets.segmentations import Drawing, Segmentations
from lightning_sal.datasets.spelling import shared_start
from lightning_sal.files.reading import parse_object, read_json, read_text
from lightning_sal.predictions.map_files import MapFile, MasksOfImage, map_files
from lightning_sal.predictions.map_ranges import find_ranges
from lightning_sal.predictions.truths import image_name
from lightning_sal.tasks import Task, get_task

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

# (H, W) of the ground truth -> (N, H, W) masks or a (1, H, W) map in [0, 1], and the scores of the masks where known
Reader = Callable[[tuple[int, int]], tuple["Tensor", "Tensor | None"]]


def prediction_readers(
    path: Path, task: Task, benchmark: str, photographs: Mapping[str, Photograph]
) -> dict[str, Reader]:
    """Name of an image -> how its prediction is read.

    A folder of saliency maps, images or arrays of NumPy, named as the images (SOD; in one folder a group for CoSOD), a
    folder of colour-coded instances (SIS), COCO results with scores (SIS, a json), or a folder that `PredictionWriter` has
    written.

    Args:
        path: The folder, or the json.
        task: What the predictions answer.
        benchmark: Name of the benchmark, by which the lines of `PredictionWriter` are chosen that name one.
        photographs: Name of an image -> its photograph: tells which of two predictions of one name is its own, and, read
            from a COCO json, which id COCO results call it by.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The path holds nothing of the kind, or two predictions of one image.

    Maps in another range than that of their type are read by it, which a line of the log says; see `map_ranges`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise ValueError(
                f"{path}: a file of predictions is COCO results, .json; others are read from folders of images"
            )
        return _coco_results(path, photographs)
    if (path / "predictions.jsonl").is_file():
        return _own_predictions(path / "predictions.jsonl", task, benchmark, photographs)
    folders = subfolders(path) if task.several else [path]
    of_maps = task.masks_per_image is not None
    files = [file for folder in folders for file in (map_files if of_maps else image_files)(folder)]
    if not files:
        kinds = "images, npy and npz" if of_maps else "images"
        where = "in one folder a group" if task.several else "right in it"
        found = contents(path)
        raise ValueError(f"{path}: no predictions; looked for {kinds} {where}, or predictions.jsonl; found {found}")
    named: dict[str, Path] = {}
    for file in files:
        if (first := named.setdefault(image_name(file, task), file)) != file:
            raise ValueError(f"{path}: two predictions for one image, {first.name} and {file.name}: delete one")
    if not of_maps:
        return {name: partial(_read_instances, file) for name, file in named.items()}
    ranges, lines = find_ranges(files)
    for line in lines:
        log.warning(f"{path}: {line}")
    return {name: MapFile(file, ranges.get(file)) for name, file in named.items()}


def parse_prediction(text: str) -> dict[str, Any]:
    """A line of `predictions.jsonl`, as `lightning_sal.pages.prediction_files` writes it.

    Raises:
        ValueError: It is none.
    """
    fields = parse_object(text)
    images, masks, overlays = fields.get("images"), fields.get("masks"), fields.setdefault("overlays", [])
    if not isinstance(masks, list) or not all(map(_are_texts, (images, overlays, *masks))):
        raise ValueError("`images` and `overlays` are no lists of files, or `masks` is none of such lists")
    return fields


def labels_of(fields: Mapping[str, Any]) -> list[str]:
    """What the answer of a line of `predictions.jsonl` says, one text a prompt; lines of before it was written are read."""
    return list(fields.get("labels") or get_task(fields["task"]).parse(fields["response"]).labels)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)


def _read_instances(path: Path, size: tuple[int, int]) -> tuple[Tensor, None]:
    return read_instances_png(path, size), None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a line of `predictions.jsonl` says of one image."""

    line: int
    task: str
    image: Path
    masks: list[str]


def _own_predictions(
    path: Path, task: Task, benchmark: str, photographs: Mapping[str, Photograph]
) -> dict[str, Reader]:
    found: dict[str, list[_Answer]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = parse_prediction(line)
            if len(fields["masks"]) != len(fields["images"]):
                raise ValueError(f"{len(fields['masks'])} lists of masks for {len(fields['images'])} images")
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not a line of PredictionWriter: {error}") from None
        if fields.get("benchmark", "") in ("", benchmark):
            for image, masks in zip(map(Path, fields["images"]), fields["masks"], strict=True):
                answer = _Answer(number, str(fields.get("task")), image, masks)
                found.setdefault(image_name(image, task), []).append(answer)
    readers: dict[str, Reader] = {}
    for name, answers in found.items():
        own = [answer for answer in answers if answer.task == task.name] or answers
        own = _nearest(own, photographs[name].path) if name in photographs else own
        if len(own) > 1:
            raise ValueError(
                f"{path}:{own[1].line}: a second prediction of {name!r}, after line {own[0].line}: keep one"
            )
        readers[name] = MasksOfImage([path.parent / mask for mask in own[0].masks])
    return readers


def _nearest(answers: list[_Answer], photograph: Path) -> list[_Answer]:
    """Those whose image's path has the longest end in common with the photograph's; several where several have.

    So the photographs of a dataset are told from its masks, of the same stems, where both were answered.
    """
    end = photograph.absolute().parts[::-1]
    shared = [shared_start([answer.image.parts[::-1], end]) for answer in answers]
    return [answer for answer, parts in zip(answers, shared, strict=True) if parts == max(shared)]


def _coco_results(path: Path, photographs: Mapping[str, Photograph]) -> dict[str, Reader]:
    truths = {
        truth.image: (name, photograph, truth)
        for name, photograph in photographs.items()
        if isinstance(truth := photograph.annotation, Segmentations)
    }
    if not truths:
        raise ValueError(f"{path}: COCO results need a COCO json as ground truth, whose ids of images they name")
    drawn: dict[Any, list[tuple[Drawing, float]]] = {key: [] for key in truths}  # an image may have no detection
    results = read_json(path)
    if not isinstance(results, list):
        raise ValueError(f"{path}: not COCO results: no list of them")
    for number, result in enumerate(results, 1):
        place = f"{path}: result {number}"
        score = result.get("score") if isinstance(result, dict) else None
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(f"{place}: not COCO results: no object with a `score` that is a number")
        key = result.get("image_id")
        if not isinstance(key, int | float | str) or key not in truths:
            raise ValueError(f"{place}: image_id {shortened(key)} is not in the ground truth")
        drawn[key].append(((place, result.get("segmentation")), float(score)))
    return {name: partial(_draw, photograph, truth, drawn[key]) for key, (name, photograph, truth) in truths.items()}


def _draw(
    photograph: Photograph, truth: Segmentations, results: list[tuple[Drawing, float]], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Results in the frame of the ground truth."""
    import torch

    found = Segmentations([drawing for drawing, _ in results], truth.frame, truth.source, predicted=True)
    scores = torch.tensor([score for _, score in results], dtype=torch.float64)
    return found(size, read_orientation(photograph.path)), scores
