"""Predictions of any method as files: saliency maps, and instances."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sal.datasets.coco import draw
from lightning_sal.datasets.files import composed, files_below, image_files, stem, subfolders
from lightning_sal.datasets.images import read_instances_png, read_map, read_mask
from lightning_sal.datasets.layouts import contents, split_of
from lightning_sal.datasets.map_ranges import find_ranges

log = logging.getLogger(__name__)

# (H, W) of the ground truth -> (N, H, W) masks or a (1, H, W) map in [0, 1], and the scores of the masks where known
Reader = Callable[[tuple[int, int]], tuple[Tensor, Tensor | None]]


def prediction_readers(path: Path, task: str, benchmark: str, ids: Mapping[Any, str]) -> dict[str, Reader]:
    """Name of an image -> how its prediction is read.

    A folder of saliency maps named as the images (SOD; in one folder a group for CoSOD), a folder of colour-coded
    instances (SIS), COCO results with scores (SIS, a json), or a folder that `PredictionWriter` has written.

    Args:
        path: The folder, or the json.
        task: sod, sis or cosod.
        benchmark: Name of the benchmark, by which the lines of `PredictionWriter` are chosen that name one.
        ids: Image id -> name of the image, for COCO results.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The path holds nothing of the kind, or two files for one image.

    Maps in another range than that of their type are read by it, which a line of the log says; see `map_ranges`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_file():
        return _coco_results(path, ids)
    if (path / "predictions.jsonl").is_file():
        return _own_predictions(path / "predictions.jsonl", task, benchmark)
    folders = subfolders(path) if task == "cosod" else [path]
    files = [file for folder in folders for file in image_files(folder)]
    if not files:
        where = "in one folder a group" if task == "cosod" else "right in it"
        found = contents(path)
        raise ValueError(f"{path}: no predictions; looked for images {where}, or predictions.jsonl; found {found}")
    named: dict[str, Path] = {}
    for file in files:
        if (first := named.setdefault(image_name(file, task), file)) != file:
            raise ValueError(f"{path}: two predictions for one image, {first.name} and {file.name}: delete one")
    if task == "sis":
        return {name: partial(_read_instances, file) for name, file in named.items()}
    ranges, lines = find_ranges(files)
    for line in lines:
        log.warning(f"{path}: {line}")
    return {name: partial(_read_map, file, ranges.get(file)) for name, file in named.items()}


def _read_map(path: Path, top: int | None, size: tuple[int, int]) -> tuple[Tensor, None]:
    return read_map(path, size, top)[None], None


def _read_instances(path: Path, size: tuple[int, int]) -> tuple[Tensor, None]:
    return read_instances_png(path, size), None


def image_name(path: Path, task: str) -> str:
    """The name under which predictions of an image are looked for: its stem, for CoSOD after the folder of its group."""
    return f"{composed(path.parent.name)}/{stem(path)}" if task == "cosod" else stem(path)


def coco_ids(truth: Path) -> dict[Any, str]:
    """Image id -> name of the image, of a COCO json, or of the test json in a folder.

    Raises:
        ValueError: The folder holds no json, or several that may be meant.
    """
    files = [truth] if truth.is_file() else files_below(truth, ".json")
    files = [file for file in files if split_of(file.stem) == "test"] or files
    if len(files) != 1:
        raise ValueError(f"{truth}: COCO results need one COCO json as ground truth, not {len(files)}; name the json")
    images = json.loads(files[0].read_bytes())["images"]
    return {image["id"]: stem(Path(image["file_name"])) for image in images}


def _own_predictions(path: Path, task: str, benchmark: str) -> dict[str, Reader]:
    found: dict[str, Reader] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            fields = json.loads(line)
            pairs = list(zip(fields["images"], fields["masks"], strict=True))
            if fields.get("benchmark", "") not in ("", benchmark):
                continue
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a line of PredictionWriter: {error}") from None
        for image, masks in pairs:
            found[image_name(Path(image), task)] = partial(_read_masks, [path.parent / mask for mask in masks])
    return found


def _read_masks(paths: Iterable[Path], size: tuple[int, int]) -> tuple[Tensor, None]:
    masks = [read_mask(path, size) for path in paths]
    return torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool), None


def _coco_results(path: Path, ids: Mapping[Any, str]) -> dict[str, Reader]:
    drawn: dict[str, list[tuple[Any, float]]] = {name: [] for name in ids.values()}  # an image may have no detection
    try:
        for result in json.loads(path.read_bytes()):
            name = ids.get(result["image_id"])
            if name is None:
                raise ValueError(f"image_id {result['image_id']} is not in the ground truth")
            drawn[name].append((result["segmentation"], float(result["score"])))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not COCO results: {type(error).__name__} {error}") from None
    return {name: partial(_draw, results) for name, results in drawn.items()}


def _draw(results: list[tuple[Any, float]], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    masks = [np.asarray(draw(segmentation, size), dtype=bool) for segmentation, _ in results]
    scores = torch.tensor([score for _, score in results], dtype=torch.float64)
    return (torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *size, dtype=torch.bool)), scores
