"""Predictions as a dataset of FiftyOne (docs.voxel51.com), where they are looked at, filtered and compared.

Of each image: `prediction`, its masks and boxes with their labels; `without_mask`, the expressions for which none was found;
`response`, `reasoning`, `confidence`, `malformed`; and what it was measured by, where results are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_sal.datasets.pixels import read_orientation
from lightning_sal.errors import UsageError
from lightning_sal.evaluation.results import read_images, read_summary
from lightning_sal.files.reading import read_text
from lightning_sal.internals.shell import installing
from lightning_sal.predictions.readers import labels_of, parse_prediction
from lightning_sal.tasks import get_task


def to_fiftyone(folder: Path, name: str, results: Path | None = None) -> Any:
    """Make a dataset that stays in FiftyOne's data base; `fiftyone app launch NAME` shows it.

    Args:
        folder: What `segment` or `PredictionWriter` has written.
        name: Of the dataset.
        results: What `lightning test` or `score` has written of the same images; None where they were not measured.

    Returns:
        The `fiftyone.Dataset`.

    Raises:
        FileExistsError: FiftyOne has a dataset of this name.
        FileNotFoundError: There are no predictions, or an image is not where they say.
        UsageError: FiftyOne is not installed, or finds no data base.
        ValueError: A line is no prediction.
    """
    try:
        fiftyone = import_module("fiftyone")
    except ImportError:
        raise UsageError(f"FiftyOne is not installed: {installing('fiftyone')}") from None
    samples = [*_samples(fiftyone, folder, {} if results is None else _measured(results))]
    try:
        if fiftyone.dataset_exists(name):
            raise FileExistsError(f"FiftyOne has a dataset {name!r}, which is not overwritten: give another name")
        dataset = fiftyone.Dataset(name, persistent=True)
    except fiftyone.core.config.FiftyOneConfigError as error:
        raise UsageError(f"FiftyOne finds no data base: {' '.join(str(error).split())}") from None
    dataset.add_samples(samples)
    return dataset


def _samples(fiftyone: Any, folder: Path, measured: Mapping[str, Mapping[str, float]]) -> Iterator[Any]:
    path = folder / "predictions.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a folder that `segment` or `PredictionWriter` has written")
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = parse_prediction(line)
            task = get_task(str(fields.get("task")))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        said, reasoning = labels_of(fields), task.parse(fields["response"]).reasoning
        for at, image in enumerate(fields["images"]):
            file = Path(image)
            if not file.is_file():
                raise FileNotFoundError(
                    f"{path}:{number}: no image {image}: run this in the folder where it was answered"
                )
            masks = [np.asarray(Image.open(folder / mask)) > 0 for mask in fields["masks"][at]]
            # One mask of all expressions, or one an expression
            labels = [", ".join(said)] if task.masks_per_image == 1 else said
            found = [*_of_masks(masks, labels), *_of_boxes(fields.get("boxes") or [], file)]
            yield fiftyone.Sample(
                filepath=str(file.absolute()),
                task=task.name,
                response=fields["response"],
                reasoning=reasoning,
                confidence=fields["confidence"],
                malformed=fields["reason"],
                without_mask=[label for label, mask in zip(labels, masks, strict=False) if not mask.any()],
                prediction=fiftyone.Detections(detections=[fiftyone.Detection(**each) for each in found]),
                **{name: value for name, value in measured.get(image, {}).items() if name != "confidence"},
            )


def _of_masks(masks: Sequence[np.ndarray], labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Masks (H, W) within their boxes; those in which nothing is found have none."""
    for mask, label in zip(masks, labels, strict=False):
        if not mask.any():
            continue
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        (y0, y1), (x0, x1) = ((int(side[0]), int(side[-1]) + 1) for side in (rows, columns))
        box = _relative((x0, y0, x1, y1), (mask.shape[1], mask.shape[0]))
        yield {"label": label, "bounding_box": box, "mask": mask[y0:y1, x0:x1]}


def _of_boxes(boxes: Sequence[Sequence[float] | None], file: Path) -> Iterator[dict[str, Any]]:
    if not boxes:
        return
    with Image.open(file) as image:
        width, height = image.size if read_orientation(file) < 5 else image.size[::-1]
    for number, box in enumerate(boxes, 1):
        if box is not None:
            yield {"label": f"object {number}", "bounding_box": _relative(box, (width, height))}


def _relative(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """x, y, width and height as shares of the image, of x0, y0, x1, y1 in its pixels."""
    (x0, y0, x1, y1), (width, height) = box, size
    return [min(x0, x1) / width, min(y0, y1) / height, abs(x1 - x0) / width, abs(y1 - y0) / height]


def _measured(results: Path) -> dict[str, dict[str, float]]:
    """File of an image -> its values by measure."""
    summary = read_summary(results)
    rows = [row for benchmark in summary.tasks for row in read_images(results, benchmark)]
    return {
        row["image"]: {name: float(row[name]) for name in summary.measures if _is_number(row.get(name) or "")}
        for row in rows
    }


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:  # of `malformed`, the reason
        return False
