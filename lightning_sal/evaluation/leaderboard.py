"""Many runs in one table: models as rows, benchmarks as columns, with intervals, ranks and what the answers cost.

Nothing is compared in silence that was not measured alike: such a value is neither the best nor ranked, and a note says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sal.evaluation.likeness import find_unlike, settings_apart
from lightning_sal.evaluation.measured import Measured, Place, intervals, read_measured
from lightning_sal.evaluation.results import Results, joined, read_summary
from lightning_sal.evaluation.tables import columns, measures_of
from lightning_sal.tasks import TASKS, Measure

ROUNDED = 5e-4  # two values that differ by less are shown alike


@dataclass(frozen=True, slots=True)
class Cost:
    """A column of what the answers of a method took.

    Args:
        heading: Of the column.
        form: How its numbers are written.
        per_image: Whether it is a mean over images, and not a sum.
    """

    heading: str
    form: str
    per_image: bool = True


COSTS = {  # as `Results.usage` calls them
    "cost": Cost("dollars", "{:.3g}", per_image=False),
    "input_tokens": Cost("tokens in / image", "{:.0f}"),
    "output_tokens": Cost("tokens out / image", "{:.0f}"),
    "seconds": Cost("s / image", "{:.3g}"),
}
MALFORMED = Cost("malformed", "{:.3f}")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number of the table.

    Args:
        value: The number.
        interval: Its 95 % interval; None where it is no mean over images.
        notes: Numbers of the notes, from 1, that are to be read with it.
        best: Whether it is the best of its column.
    """

    value: float
    interval: tuple[float, float] | None = None
    notes: tuple[int, ...] = ()
    best: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table.

    Args:
        result: All results of the method.
        rank: Mean of its ranks; None where there are none.
        cells: (benchmark, metric) -> its number, where it has one.
        costs: Cost -> its number, where it is known.
        reading: How its responses were read; empty where nothing states it.
        notes: Numbers of the notes on the method.
    """

    result: Results
    rank: float | None
    cells: Mapping[tuple[str, str], Cell]
    costs: Mapping[str, Cell]
    reading: str
    notes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The whole table.

    Args:
        columns: (benchmark, metric) of each; the primary metric of a benchmark is its first.
        measures: What the metrics are.
        costs: The columns of costs that any row has.
        lines: The rows, the best rank first.
        ranked: The benchmarks that ranks are over -> the metric.
        notes: Number 1 is the first.
    """

    columns: Sequence[tuple[str, str]]
    measures: Mapping[str, Measure]
    costs: Mapping[str, Cost]
    lines: Sequence[Line]
    ranked: Mapping[str, str]
    notes: Sequence[str]

    @property
    def about(self) -> str:
        """What is to be known of all rows."""
        words = "Values with 95 % intervals over 10,000 bootstrap resamples of the images, where they are means over images."
        if self.ranked:
            over: dict[str, list[str]] = {}
            for name, metric in self.ranked.items():
                over.setdefault(self.measures[metric].heading, []).append(name)
            by = " and ".join(f"{heading} of {', '.join(names)}" for heading, names in over.items())
            words += f" Rows stand by rank: the mean of a row's ranks by {by}; equal values share a rank."
        return words


class _Notes:
    """Notes in the order in which they are first needed; two of the same words are one."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def read_leaderboard(folders: Sequence[Path], metrics: Sequence[str] = ()) -> Leaderboard:
    """The table of some folders.

    Args:
        folders: What `lightning test` or `score` has written; folders of one method are one row.
        metrics: Columns; by default the primary metric of each benchmark and those that papers report.

    Raises:
        OSError: A folder holds no results, or lacks the rows of a benchmark.
        ValueError: Two folders hold the same, no results have a metric, or a row holds what is no number.
    """
    each = [read_summary(folder) for folder in folders]
    results = joined(each)
    chosen = leading_columns(results, metrics)
    shown = list(dict.fromkeys(metric for _, metric in chosen))
    return leaderboard(results, read_measured(folders, each, shown), chosen)


def leading_columns(results: Sequence[Results], metrics: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(benchmark, metric) of the table: of each benchmark its primary metric first.

    Raises:
        ValueError: No results have one of `metrics`.
    """
    shown = columns(results, metrics)
    first = primaries(results)
    benchmarks = dict.fromkeys([*first, *(name for name, _ in shown)])
    own = {name: [metric for of, metric in shown if of == name] for name in benchmarks}
    leading = {name: [first[name]] if name in first and (not metrics or first[name] in metrics) else [] for name in own}
    return [(name, metric) for name in own for metric in dict.fromkeys([*leading[name], *own[name]])]


def primaries(results: Sequence[Results]) -> dict[str, str]:
    """Benchmark -> the primary metric of its task, where any method has it."""
    measures = measures_of(results)
    found: dict[str, str] = {}
    for result in results:
        for benchmark, task in result.tasks.items():
            known = TASKS[task].measures() if task in TASKS else measures
            own = result.metrics.get(benchmark, {})
            if names := [name for name, measure in known.items() if measure.primary and name in own]:
                found.setdefault(benchmark, names[0])
    return found


def leaderboard(
    results: Sequence[Results], measured: Mapping[Place, Measured], chosen: Sequence[tuple[str, str]]
) -> Leaderboard:
    """The table.

    Args:
        results: One a method.
        measured: What their images hold.
        chosen: The columns.
    """
    measures = {metric: Measure(metric) for _, metric in chosen}  # where no summary states it
    measures |= measures_of(results)
    notes, unlike, apart = _Notes(), find_unlike(results, measured), settings_apart(results)
    found = intervals(measured)
    ranked = {
        name: metric
        for name, metric in primaries(results).items()
        if len(results) > 1 and all(metric in r.metrics.get(name, {}) and (r.name, name) not in unlike for r in results)
    }
    ranks = {r.name: _mean_rank(r, results, ranked, measures) for r in results}
    tops = {column: _best(results, unlike, measures, *column) for column in chosen if len(results) > 1}
    lines = []
    for r in sorted(results, key=lambda r: ranks[r.name] or 0.0):
        cells = {
            (benchmark, metric): _cell(
                value,
                found.get((r.name, benchmark, metric)),
                benchmark,
                unlike.get((r.name, benchmark), []),
                tops.get((benchmark, metric)),
                notes,
            )
            for benchmark, metric in chosen
            if (value := r.metrics.get(benchmark, {}).get(metric)) is not None
        }
        of_settings = tuple(notes.number(text) for text, names in apart if r.name in names)
        lines.append(Line(r, ranks[r.name], cells, _costs(r, results, measured, notes), _reading(r), of_settings))
    left_out = [name for name in dict.fromkeys(name for r in results for name in r.metrics) if name not in ranked]
    if len(results) > 1 and left_out:
        over = f"over {', '.join(ranked)} alone" if ranked else "given for none"
        notes.number(f"Ranks are {over}: not all rows have, or are measured alike on, {', '.join(left_out)}.")
    stated = {name for line in lines for name in line.costs}
    costs = {name: cost for name, cost in {**COSTS, "malformed": MALFORMED}.items() if name in stated}
    return Leaderboard(chosen, measures, costs, lines, ranked, notes.texts)


def _cell(
    value: float,
    found: tuple[float, float, float] | None,
    benchmark: str,
    unlike: Sequence[str],
    top: float | None,
    notes: _Notes,
) -> Cell:
    """A value with the interval of its images, where these have it as their mean."""
    told, interval = [*unlike], None
    if found is not None:
        mean, *interval = found
        if abs(mean - value) > ROUNDED:
            interval = None
            told.append(f"{benchmark}: no interval, since the value is no plain mean over its images.")
    ends = None if interval is None else (interval[0], interval[1])
    return Cell(value, ends, tuple(map(notes.number, told)), best=not unlike and _shown(value) == top)


def _shown(value: float) -> float:
    return round(value, 3)


def _best(
    results: Sequence[Results],
    unlike: Mapping[Place, Any],
    measures: Mapping[str, Measure],
    benchmark: str,
    metric: str,
) -> float | None:
    """The best value of a column as it is shown, of those that are measured alike."""
    alike = (r.metrics.get(benchmark, {}) for r in results if (r.name, benchmark) not in unlike)
    values = [_shown(own[metric]) for own in alike if metric in own]
    return (min if _lower(measures, metric) else max)(values, default=None)


def _mean_rank(
    result: Results, results: Sequence[Results], ranked: Mapping[str, str], measures: Mapping[str, Measure]
) -> float | None:
    """Mean over benchmarks of 1 + how many are better + half of how many others are equal."""
    ranks = []
    for benchmark, metric in ranked.items():
        sign = -1 if _lower(measures, metric) else 1
        own = sign * result.metrics[benchmark][metric]
        values = [sign * r.metrics[benchmark][metric] for r in results]  # its own among them
        ranks.append(sum(value > own for value in values) + (1 + sum(value == own for value in values)) / 2)
    return sum(ranks) / len(ranks) if ranks else None


def _lower(measures: Mapping[str, Measure], metric: str) -> bool:
    return metric in measures and measures[metric].lower_is_better


def _reading(result: Results) -> str:
    readings = dict.fromkeys(str(own["reading"]) for own in result.settings.values() if "reading" in own)
    return ", ".join(readings)


def _costs(
    result: Results, results: Sequence[Results], measured: Mapping[Place, Measured], notes: _Notes
) -> dict[str, Cell]:
    """What is known of the costs of a method; where it is not of all benchmarks of the table, a note says of which."""
    everything = dict.fromkeys(name for r in results for name in r.metrics)
    images = {name: measured[result.name, name].images for name in result.metrics}
    known = {name: {b: own[name] for b, own in result.usage.items() if name in own and images.get(b)} for name in COSTS}
    cells = {}
    for name, own in known.items():
        if own:
            count = sum(images[benchmark] for benchmark in own) if COSTS[name].per_image else 1
            cells[name] = Cell(sum(own.values()) / count, notes=_partial(own, everything, notes))
    answered = {name: each for name in images if (each := measured[result.name, name]).samples}
    if answered:
        share = sum(each.malformed for each in answered.values()) / sum(each.samples for each in answered.values())
        cells["malformed"] = Cell(share, notes=_partial(answered, everything, notes))
    return cells


def _partial(known: Mapping[str, Any], everything: Mapping[str, Any], notes: _Notes) -> tuple[int, ...]:
    if known.keys() == everything.keys():
        return ()
    return (
        notes.number(f"Costs and malformed are over {', '.join(name for name in everything if name in known)} alone."),
    )
