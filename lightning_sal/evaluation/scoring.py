"""Scoring predictions of any method against a benchmark, both as files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning_sal.datasets import task_records
from lightning_sal.datasets.layouts import listed
from lightning_sal.datasets.predictions import Reader, image_name, prediction_readers
from lightning_sal.datasets.records import Photograph
from lightning_sal.evaluation.metrics import compute_all
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.pages.drawing import panel
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Task

log = logging.getLogger(__name__)

FAINT = 1 / 255  # most of a map that may be one of 0 and 1 in 8 bits, or of 8-bit values in 16


@dataclass(frozen=True, slots=True)
class Scored:
    """One image: its ground truth and how its prediction is read."""

    name: str
    photograph: Photograph
    read: Reader


def pair_up(preds: Path, truth: Path, task: Task, benchmark: str) -> list[Scored]:
    """Every image of a benchmark with its prediction.

    Args:
        preds: What `prediction_readers` takes.
        truth: The benchmark, as distributed; where it holds splits, the test split is taken.
        task: Its task.
        benchmark: Its name.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: Images without prediction or predictions without image, or two predictions of one: they are named.
    """
    images: dict[str, Photograph] = {}
    for record in task_records(task, truth, "test"):
        for photograph in record.photographs:
            name = image_name(photograph.path, task)
            if name in images:
                raise ValueError(f"{truth}: {photograph.path} and {images[name].path} share the name {name!r}")
            images[name] = photograph
    readers = prediction_readers(preds, task, benchmark, images)
    missing, extra = sorted(set(images) - set(readers)), sorted(set(readers) - set(images))
    if missing or extra:
        found = {"images without prediction": missing, "predictions without image": extra}
        faults = [f"{len(names)} {what} ({listed(names)})" for what, names in found.items() if names]
        raise ValueError(f"{preds}: {' and '.join(faults)}; there must be one for each image of {truth}")
    return [Scored(name, photograph, readers[name]) for name, photograph in images.items()]


def score(
    pairs: Iterable[Scored], task: Task, writer: ResultsWriter, benchmark: str, **options: bool
) -> dict[str, float]:
    """Metrics over all pairs; a row for each goes to the writer.

    Args:
        pairs: What `pair_up` gives.
        task: What the masks answer.
        writer: Takes the rows.
        benchmark: Name of the benchmark.
        **options: Those of the task's `metrics`.

    Raises:
        UnreadableSample: A file cannot be read, or does not fit.
        ValueError: An image has no ground truth.
    """
    metrics = task.metrics(**options)
    peaks: dict[str, float] = {}
    for pair in pairs:
        image, truth = pair.photograph.read()
        if truth is None:
            raise ValueError(f"{pair.photograph.path}: there is no mask to score against; give its masks")
        masks, scores = pair.read((image.shape[0], image.shape[1]))
        row = {"benchmark": benchmark, "key": pair.name, "image": str(pair.photograph.path)}
        group = ImageGroup(pair.name, task.name, (image,), (truth,))
        (values,) = task.update(metrics, group, None, (masks,), scores)
        peaks[pair.name] = masks.max().item() if masks.numel() else 0.0
        writer.add(row | values, partial(panel, [image], [truth], [masks > 0.5], ""))
    _warn_of_dark(peaks)
    return {name: value.item() for name, value in compute_all(metrics).items()}


def _warn_of_dark(peaks: Mapping[str, float]) -> None:
    """Warn of maps that may be written in another range than they were read in.

    Args:
        peaks: Name of an image -> the largest value of its map, in [0, 1].
    """
    faint = [name for name, peak in peaks.items() if 0 < peak <= FAINT]
    if faint:
        log.warning(
            f"{len(faint)} of {len(peaks)} maps hold nothing above 1 of 255 ({listed(faint)}): if they are of 0 and 1, "
            "write them as 0 and 255, as the others"
        )
    elif 0 < max(peaks.values(), default=0) <= 0.5:
        log.warning(
            f"no value in {len(peaks)} maps is above half of the range, the largest is {max(peaks.values()):.3g} of 1: if "
            "they are in another range, rescale them, or say --normalize"
        )
