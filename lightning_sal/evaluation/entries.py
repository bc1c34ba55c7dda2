"""Methods on benchmarks as their results state them, to be compared image by image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sal.evaluation.curves import Curves, read_curves
from lightning_sal.evaluation.results import Results, read_images
from lightning_sal.evaluation.tables import Images, by_image, measures_of
from lightning_sal.tasks import TASKS, Measure


@dataclass(frozen=True, slots=True)
class Entry:
    """One method on one benchmark.

    Args:
        name: Of the method.
        number: Of the method, which says its colour.
        folder: Where its results lie.
        benchmark: Its name.
        task: Of the benchmark.
        settings: How its responses came about, and how they were measured.
        usage: What its responses took, as in `Results`.
        images: Its rows.
        curves: Its curves; empty where it has none.
    """

    name: str
    number: int
    folder: Path
    benchmark: str
    task: str
    settings: Mapping[str, Any]
    usage: Mapping[str, float]
    images: Images
    curves: Curves

    def values(self, metric: str) -> dict[tuple[str, int], float]:
        """Image -> its value, of those that are measured by it."""
        return {image: float(row[metric]) for image, row in self.images.items() if row.get(metric)}


def read_entries(folders: Sequence[Path], results: Sequence[Results]) -> dict[str, list[Entry]]:
    """Benchmark -> the methods that have results on it.

    Args:
        folders: Of results.
        results: The summary of each.

    Raises:
        OSError: A folder lacks the rows of a benchmark.
        ValueError: A row of an image lacks what it should have, or a value is no number.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(result.name for result in results))}
    benchmarks: dict[str, list[Entry]] = {}
    for folder, result in zip(folders, results, strict=True):
        curves = read_curves(folder)
        measured = [name for name, measure in result.measures.items() if measure.per_image]
        for benchmark, task in result.tasks.items():
            rows = checked_rows(folder, benchmark, measured)
            entry = Entry(
                name=result.name,
                number=numbers[result.name],
                folder=folder,
                benchmark=benchmark,
                task=task,
                settings=result.settings.get(benchmark, {}),
                usage=result.usage.get(benchmark, {}),
                images=by_image(rows),
                curves=curves.get(benchmark, {}),
            )
            benchmarks.setdefault(benchmark, []).append(entry)
    return benchmarks


def checked_rows(folder: Path, benchmark: str, measured: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a benchmark; `measured` names the columns that hold numbers.

    Raises:
        OSError: The folder lacks them.
        ValueError: A row of an image lacks what it should have, or a value is no number.
    """
    rows = read_images(folder, benchmark)
    measured = [name for name in measured if rows and name in rows[0]]
    for line, row in enumerate(rows, 2):
        if fault := _fault(row, measured):
            raise ValueError(f"{folder / benchmark}.csv:{line}: {fault}")
    return rows


def _fault(row: Mapping[str, str], measured: Sequence[str]) -> str | None:
    """What is wrong with a row."""
    if not {"image", "key"} <= row.keys() or None in (*row, *row.values()):
        return "no row of results: `image` or `key` is missing, or it has not as many values as the head of the file"
    return next(
        (f"{name} is {row[name]!r}, which is no number" for name in measured if not _is_value(row.get(name))), None
    )


def _is_value(text: str | None) -> bool:
    """A number, or nothing."""
    try:
        return not text or math.isfinite(float(text))
    except ValueError:
        return False


def per_image(results: Sequence[Results], entries: Sequence[Entry], metrics: Sequence[str] = ()) -> dict[str, Measure]:
    """The measures of a benchmark that its images have: the primary one first, then those that papers report.

    Where no image has any of these, as of boxes without masks, the first that they have.

    Args:
        results: Of all methods.
        entries: The methods on the benchmark.
        metrics: In place of those that are reported.
    """
    measures = measures_of(results)
    for task in dict.fromkeys(entry.task for entry in entries):
        measures |= TASKS[task].measures() if task in TASKS else {}  # what another task reports is not reported of this
    known = {
        name: measure
        for name, measure in measures.items()
        if measure.per_image and any(row.get(name) for entry in entries for row in entry.images.values())
    }
    chosen = [name for name, measure in known.items() if name in metrics or (not metrics and measure.reported)]
    primary = [name for name, measure in known.items() if measure.primary]
    names = dict.fromkeys([*primary, *chosen]) or [*known][:1]
    return {name: known[name] for name in names}


def comparable(entries: Sequence[Entry]) -> tuple[list[Images], int]:
    """The rows of each method that can be compared with those of the others, and how many images are left out.

    Those are images with several rows, as of several questions, of which two methods have not equally many: nothing tells
    which row is which.
    """
    counts = [Counter(name for name, _ in entry.images) for entry in entries]
    doubtful = {name for count in counts for name in count if len({c[name] for c in counts if name in c}) > 1}
    kept = [{image: row for image, row in entry.images.items() if image[0] not in doubtful} for entry in entries]
    return kept, len(doubtful)
