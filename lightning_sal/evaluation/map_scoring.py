"""Scoring saliency maps of any method against masks, both as files: read once, counted once, nothing of torch."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lightning_sal.datasets.layouts import listed
from lightning_sal.evaluation.jobs import Job, Options, Outcome, Show, one_thread
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.maps.conventions import Convention, convention_of, normalized
from lightning_sal.maps.counting import count_levels, is_object
from lightning_sal.maps.measures import Averages, ImageMeasures, measure
from lightning_sal.pages.map_pictures import Pictures, of_maps
from lightning_sal.predictions.pairing import MapPair, MapPairs, pair_maps
from lightning_sal.tasks import RegionTask, Task
from lightning_sal.tasks.masks import MaskTask

log = logging.getLogger(__name__)

FAINT = 1 / 255  # most of a map that may be one of 0 and 1 in 8 bits, or of 8-bit values in 16
AHEAD = 8  # images read before they are measured, or measured by a process at a time


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known of one pair.

    Args:
        measures: Of the image.
        peak: The largest value of the map, in [0, 1].
        resized: Whether the map had another size than its ground truth.
    """

    measures: ImageMeasures
    peak: float
    resized: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """A pair as its files hold it: levels, and those that mean 1."""

    truth: np.ndarray
    truth_top: float
    levels: np.ndarray
    top: float
    resized: bool


def prepare(preds: Path, truth: Path, task: Task, benchmark: str, options: Options) -> Job:
    """See `jobs.prepare`. A task of regions with metrics of its own is scored by these, from tensors."""
    if type(task).metrics is not RegionTask.metrics:
        return import_module(MaskTask.scoring).prepare(preds, truth, task, benchmark, options)
    convention = convention_of(options.convention)
    found = pair_maps(preds, truth, task, benchmark, skip_missing=options.skip_missing, resize=options.resize)
    run = partial(_run, found, convention, options, benchmark)
    return Job(len(found.pairs), "images", run, tuple(found.notes))


def _run(
    found: MapPairs, convention: Convention, options: Options, benchmark: str, writer: ResultsWriter, show: Show
) -> Outcome:
    averages, peaks, resized = Averages(convention), {}, 0
    for pair, scored in show(zip(found.pairs, _scored(found.pairs, convention, options), strict=True)):
        averages.add(scored.measures, pair.group)
        peaks[pair.name], resized = scored.peak, resized + scored.resized
        row = {"benchmark": benchmark, "key": pair.name, "image": str(pair.photograph or "")}
        writer.add(row | pair.files | scored.measures.values, partial(_drawn, pair))
    _warn_of_dark(peaks)
    counts = {"images": len(found.pairs), "missing": len(found.missing), "extra": len(found.extra), "resized": resized}
    curves = {name: curve.tolist() for name, curve in averages.curves().items()}
    return Outcome(averages.results(), {"convention": asdict(convention), **counts}, curves)


def _scored(pairs: Sequence[MapPair], convention: Convention, options: Options) -> Iterator[Scored]:
    """What is measured of each pair, in their order."""
    if options.workers:
        with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(partial(_score_pair, convention, options), pairs, chunksize=AHEAD)
        return
    for read in _ahead(_read, pairs):
        yield _score_read(convention, options, read)


def _ahead(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """What a function gives for each item, in their order, a few of them begun by a thread before they are asked for."""
    waiting = iter(items)
    with ThreadPoolExecutor(1) as thread:
        begun = [thread.submit(function, item) for item in islice(waiting, AHEAD)]
        while begun:
            done = begun.pop(0).result()
            begun += [thread.submit(function, item) for item in islice(waiting, 1)]
            yield done


def _score_pair(convention: Convention, options: Options, pair: MapPair) -> Scored:
    return _score_read(convention, options, _read(pair))


def _read(pair: MapPair) -> _Read:
    truth, truth_top = pair.truth_levels()
    levels, top, resized = pair.map_levels((truth.shape[0], truth.shape[1]))
    return _Read(truth, truth_top, levels, top, resized)


def _score_read(convention: Convention, options: Options, read: _Read) -> Scored:
    counts = count_levels(
        read.levels,
        read.top,
        read.truth,
        read.truth_top,
        convention.truth_above,
        convention.soft_truth,
        convention.centroid,
    )
    everything = options.metrics == "all"
    measures = measure(counts, convention, everything)
    if everything or options.weighted_f:
        measures.values.update(_slow_values(read, convention, everything))
    return Scored(measures, float(counts.values[counts.pixels.any((0, 1, 2))][-1]), read.resized)


def _slow_values(read: _Read, convention: Convention, everything: bool) -> dict[str, float]:
    """What is computed from pixels and not from counts; others wait neither for torch nor for scipy."""
    import torch

    from lightning_sal.formulas.extra import extra_values
    from lightning_sal.metrics.functional import weighted_f_measure

    values = normalized(np.minimum(read.levels / read.top, 1), convention.normalize)
    mask = is_object(read.truth, read.truth_top, convention.truth_above)
    with one_thread():
        weighted = weighted_f_measure(torch.from_numpy(values)[None], torch.from_numpy(mask)[None]).item()
    return {"weighted_f": weighted} | (extra_values(values, mask) if everything else {})


def _drawn(pair: MapPair) -> Pictures:
    read = _read(pair)
    shown = (np.clip(values / top, 0, 1) for values, top in ((read.truth, read.truth_top), (read.levels, read.top)))
    return of_maps(pair.photograph, *shown)


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
            "they are in another range, rescale them"
        )
