"""Scoring what other methods answer to questions about objects, both as files; as `scoring` does it for maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lightning_sal.datasets import task_records
from lightning_sal.datasets.layouts import listed
from lightning_sal.datasets.records import Record
from lightning_sal.evaluation.jobs import Job, Options, Outcome, Show, one_thread
from lightning_sal.evaluation.metrics import compute_all, row_values
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.pages.pictures import of_masks
from lightning_sal.predictions.objects import ObjectPrediction, object_predictions
from lightning_sal.tasks import ObjectTask


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """One sample and what is answered to it."""

    record: Record
    prediction: ObjectPrediction


@dataclass(frozen=True, slots=True)
class Pairing:
    """The samples of a benchmark that have a prediction.

    Args:
        pairs: They.
        missing: Keys of those that have none.
    """

    pairs: list[ScoredSample]
    missing: list[str]


def pair_up(preds: Path, truth: Path, task: ObjectTask, benchmark: str, *, skip_missing: bool = False) -> Pairing:
    """Every sample of a benchmark with its prediction.

    Args:
        preds: What `object_predictions` takes.
        truth: The benchmark; where it holds splits, the test split is taken.
        task: Its task.
        benchmark: Its name.
        skip_missing: Whether samples without prediction are left out instead of refused.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: Samples without prediction, a prediction without sample, or two of one: they are named.
    """
    records = task_records(task, truth, "test")
    found = object_predictions(preds, truth, records, benchmark)
    missing = sorted(record.key for record in records if record.key not in found)
    if missing and (not skip_missing or len(missing) == len(records)):
        raise ValueError(
            f"{preds}: {len(missing)} samples without prediction ({listed(missing)}); there must be one for each of {truth}"
        )
    pairs = [ScoredSample(record, found[record.key]) for record in records if record.key in found]
    return Pairing(pairs, missing)


def prepare(preds: Path, truth: Path, task: ObjectTask, benchmark: str, options: Options) -> Job:
    """See `jobs.prepare`."""
    options.refuse_those_of_maps(task)
    found = pair_up(preds, truth, task, benchmark, skip_missing=options.skip_missing)
    notes = [f"{len(found.missing)} samples without prediction ({listed(found.missing)}): left out"]
    run = partial(_run, found, task, benchmark)
    return Job(len(found.pairs), "samples", run, tuple(notes) if found.missing else ())


def _run(found: Pairing, task: ObjectTask, benchmark: str, writer: ResultsWriter, show: Show) -> Outcome:
    counts = {"samples": len(found.pairs), "missing": len(found.missing)}
    with one_thread():
        return Outcome(score(show(found.pairs), task, writer, benchmark), counts)


def score(pairs: Iterable[ScoredSample], task: ObjectTask, writer: ResultsWriter, benchmark: str) -> dict[str, float]:
    """Metrics over all pairs; a row for each goes to the writer. Arguments as for `scoring.score`.

    Raises:
        UnreadableSample: A file cannot be read, or does not fit.
        ValueError: A sample lacks what it is measured by, or a prediction does not fit; the line names the sample.
    """
    metrics = task.metrics()
    for pair in pairs:
        group, found = pair.record.read(), pair.prediction
        group = replace(group, task=task.name)
        task.require(group)
        image = group.images[0]
        masks = () if found.mask is None else (found.mask((image.shape[0], image.shape[1])),)
        try:
            (values,) = task.update(metrics, group, found.answer, masks, found.scores)
        except ValueError as error:
            raise ValueError(f"{group.key}: {error}") from None
        row = {"benchmark": benchmark, "key": group.key, "image": str(pair.record.photographs[0].path)}
        prompts = () if found.answer is None else task.prompts(found.answer, (image.shape[0], image.shape[1]))
        drawn = partial(of_masks, group, masks or None, [prompts])
        writer.add({**row, "question": group.question, **row_values(task.name, values)}, drawn)
    return {name: value.item() for name, value in compute_all(metrics).items()}
