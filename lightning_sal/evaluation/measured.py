"""What the images of methods hold, as arrays: many methods on many benchmarks fit into memory, and have their intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_sal.evaluation.bootstrap import bootstrap
from lightning_sal.evaluation.entries import checked_rows
from lightning_sal.evaluation.results import Results
from lightning_sal.evaluation.tables import by_image

Place = tuple[str, str]  # name of a method, name of a benchmark


@dataclass(frozen=True, slots=True)
class Measured:
    """One method on one benchmark.

    Args:
        images: How many rows there are.
        which: Tells the same images from others.
        values: Metric -> (images,) its values in the order of the images' names; NaN where an image is not measured by it.
        samples: How many samples were answered; 0 where predictions came from files.
        malformed: How many of the responses were not in the form.
    """

    images: int
    which: bytes
    values: Mapping[str, np.ndarray]
    samples: int
    malformed: int


def read_measured(folders: Sequence[Path], results: Sequence[Results], metrics: Sequence[str]) -> dict[Place, Measured]:
    """What each folder holds of each of its benchmarks.

    Args:
        folders: Of results.
        results: The summary of each.
        metrics: Which are wanted of images.

    Raises:
        OSError: A folder lacks the rows of a benchmark.
        ValueError: A row of an image lacks what it should have, or a value is no number.
    """
    found = {}
    for folder, result in zip(folders, results, strict=True):
        names = [name for name, measure in result.measures.items() if measure.per_image]
        for benchmark in result.metrics:
            rows = checked_rows(folder, benchmark, names)
            found[result.name, benchmark] = _measured(rows, [name for name in names if name in metrics])
    return found


def _measured(rows: Sequence[dict[str, str]], metrics: Sequence[str]) -> Measured:
    named = sorted(by_image(rows).items())
    which = hashlib.blake2b(repr([image for image, _ in named]).encode(errors="surrogateescape")).digest()
    known = [name for name in metrics if rows and name in rows[0]]
    values = {name: np.array([float(row[name] or "nan") for _, row in named]) for name in known}
    said = {row["sample"]: row["malformed"] for row in rows if {"sample", "malformed"} <= row.keys()}
    return Measured(len(rows), which, values, len(said), sum(map(bool, said.values())))


def intervals(measured: Mapping[Place, Measured]) -> dict[tuple[str, str, str], tuple]:
    """(method, benchmark, metric) -> the mean over images with its 95 % interval, where images are measured by it.

    Methods that measure the same images are resampled together: so many rows cost about as much as one.

    Args:
        measured: What `read_measured` gives.
    """
    together: dict[tuple[str, bytes, bytes], list[tuple[tuple[str, str, str], np.ndarray]]] = {}
    for (method, benchmark), own in measured.items():
        for metric, values in own.values.items():
            known = ~np.isnan(values)
            if known.any():
                where = benchmark, own.which, known.tobytes()
                together.setdefault(where, []).append(((method, benchmark, metric), values[known]))
    return {
        place: interval
        for group in together.values()
        for (place, _), interval in zip(group, bootstrap(np.stack([v for _, v in group], axis=1)), strict=True)
    }
