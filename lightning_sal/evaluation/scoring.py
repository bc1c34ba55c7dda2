"""Scoring masks of any method against a benchmark, both as files, by the metrics that a task states; maps and instances have
`map_scoring` and `instance_scoring`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning_sal.evaluation.jobs import Job, Options, Outcome, Show, one_thread
from lightning_sal.evaluation.metrics import compute_all
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.pages.pictures import of_masks, small_masks
from lightning_sal.predictions.pairing import Pairing, pair_up
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Task


def prepare(preds: Path, truth: Path, task: Task, benchmark: str, options: Options) -> Job:
    """See `jobs.prepare`."""
    options.refuse_those_of_maps(task)
    found = pair_up(preds, truth, task, benchmark, skip_missing=options.skip_missing)
    return Job(len(found.truths), "images", partial(_run, found, task, benchmark, options), tuple(found.notes))


def _run(found: Pairing, task: Task, benchmark: str, options: Options, writer: ResultsWriter, show: Show) -> Outcome:
    metrics = task.metrics(**({"everything": True} if options.metrics == "all" else {}))
    counts = {"images": len(found.truths), "missing": len(found.missing), "extra": len(found.extra)}
    with one_thread():
        return Outcome(score(found, show(found.truths), task, metrics, writer, benchmark), counts)


def score(
    found: Pairing, names: Iterable[str], task: Task, metrics: Mapping[str, Any], writer: ResultsWriter, benchmark: str
) -> dict[str, float]:
    """Metrics over all pairs; a row for each goes to the writer.

    Args:
        found: What `pair_up` gives.
        names: Its images, in their order.
        task: What the masks answer.
        metrics: Those that the task gave.
        writer: Takes the rows.
        benchmark: Name of the benchmark.

    Raises:
        UnreadableSample: A file cannot be read, or does not fit.
    """
    for name in names:
        photograph = found.truths[name].image
        image, truth = photograph.read()
        assert truth is not None  # by `find_truths`
        masks, scores = found.readers[name]((image.shape[0], image.shape[1]))
        row = {"benchmark": benchmark, "key": name, "image": str(photograph.path)}
        group = ImageGroup(name, task.name, (image,), (truth,))
        (values,) = task.update(metrics, group, None, (masks,), scores)
        writer.add(row | values, partial(of_masks, group, [masks > 0.5]), small_masks(group, [masks > 0.5], 0))
    return {name: value.item() for name, value in compute_all(metrics).items()}
