"""Scoring masks of any method, such as instances, against a benchmark, both as files; maps have `map_scoring`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning_sal.datasets import task_records
from lightning_sal.datasets.layouts import listed
from lightning_sal.datasets.predictions import Reader, image_name, prediction_readers
from lightning_sal.datasets.records import Photograph
from lightning_sal.evaluation.jobs import Job, Options, Outcome, Show
from lightning_sal.evaluation.metrics import compute_all
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.pages.drawing import panel
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Task


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


def prepare(preds: Path, truth: Path, task: Task, benchmark: str, options: Options) -> Job:
    """See `jobs.prepare`."""
    options.refuse_those_of_maps(task)
    pairs = pair_up(preds, truth, task, benchmark)
    return Job(len(pairs), "images", partial(_run, pairs, task, benchmark))


def _run(pairs: Sequence[Scored], task: Task, benchmark: str, writer: ResultsWriter, show: Show) -> Outcome:
    return Outcome(score(show(pairs), task, writer, benchmark), {"images": len(pairs)})


def score(pairs: Iterable[Scored], task: Task, writer: ResultsWriter, benchmark: str) -> dict[str, float]:
    """Metrics over all pairs; a row for each goes to the writer.

    Args:
        pairs: What `pair_up` gives.
        task: What the masks answer.
        writer: Takes the rows.
        benchmark: Name of the benchmark.

    Raises:
        UnreadableSample: A file cannot be read, or does not fit.
        ValueError: An image has no ground truth.
    """
    metrics = task.metrics()
    for pair in pairs:
        image, truth = pair.photograph.read()
        if truth is None:
            raise ValueError(f"{pair.photograph.path}: there is no mask to score against; give its masks")
        masks, scores = pair.read((image.shape[0], image.shape[1]))
        row = {"benchmark": benchmark, "key": pair.name, "image": str(pair.photograph.path)}
        group = ImageGroup(pair.name, task.name, (image,), (truth,))
        (values,) = task.update(metrics, group, None, (masks,), scores)
        writer.add(row | values, partial(panel, [image], [truth], [masks > 0.5], ""))
    return {name: value.item() for name, value in compute_all(metrics).items()}
