"""Many runs in one table: models as rows, benchmarks as columns, with intervals, ranks and what the answers cost.

Nothing is compared in silence that was not measured alike: such a value is neither the best nor ranked, and a note says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lightning_sal.evaluation.measured import Measured, Place, intervals, read_measured
from lightning_sal.evaluation.results import Results, joined, read_summary
from lightning_sal.evaluation.tables import columns, measures_of, settings_text
from lightning_sal.tasks import TASKS, Measure

ROUNDED = 5e-4  # two values that differ by less are shown alike
# How a benchmark was measured, and what the row says itself: all other settings say how responses came about
NOT_OF_RESPONSES = ("convention", "images", "samples", "missing", "extra", "resized", "reading", "model", "address")

T = TypeVar("T", bound=Hashable)


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
            over = ", ".join(f"{self.measures[metric].heading} of {name}" for name, metric in self.ranked.items())
            words += f" Rows stand by rank: the mean of a row's ranks by {over}; equal values share a rank."
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
            names = [name for name, measure in known.items() if measure.primary and name in result.metrics[benchmark]]
            if names:
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
    notes, measures = _Notes(), measures_of(results)
    unlike = _unlike(results, measured)
    found = intervals(measured)
    ranked = {
        name: metric
        for name, metric in primaries(results).items()
        if len(results) > 1 and all(metric in r.metrics.get(name, {}) and (r.name, name) not in unlike for r in results)
    }
    left_out = [name for name in dict.fromkeys(name for r in results for name in r.metrics) if name not in ranked]
    ranks = {r.name: _mean_rank(r, results, ranked, measures) for r in results}
    tops = {column: _best(results, unlike, measures, *column) for column in chosen}
    apart = _settings_apart(results)
    lines = []
    for r in sorted(results, key=lambda r: ranks[r.name] or 0.0):
        cells = {}
        for benchmark, metric in chosen:
            value = r.metrics.get(benchmark, {}).get(metric)
            if value is None:
                continue
            told = [*unlike.get((r.name, benchmark), ())]
            mean, low, high = found.get((r.name, benchmark, metric), (value, None, None))
            if low is not None and abs(mean - value) > ROUNDED:
                low = None
                told.append(f"{benchmark}: no interval, since the value is no plain mean over its images.")
            cells[benchmark, metric] = Cell(
                value,
                None if low is None else (low, high),
                tuple(map(notes.number, told)),
                best=len(results) > 1
                and not unlike.get((r.name, benchmark))
                and _shown(value) == tops[benchmark, metric],
            )
        of_settings = tuple(notes.number(text) for text, names in apart if r.name in names)
        lines.append(Line(r, ranks[r.name], cells, _costs(r, results, measured, notes), _reading(r), of_settings))
    if len(results) > 1 and left_out:
        over = f"over {', '.join(ranked)} alone" if ranked else "given for none"
        notes.number(f"Ranks are {over}: not all rows have, or are measured alike on, {', '.join(left_out)}.")
    costs = {
        name: cost for name, cost in {**COSTS, "malformed": MALFORMED}.items() if any(name in e.costs for e in lines)
    }
    return Leaderboard(chosen, measures, costs, lines, ranked, notes.texts)


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


def _unlike(results: Sequence[Results], measured: Mapping[Place, Measured]) -> dict[Place, list[str]]:
    """The values that cannot be compared with those of the most rows -> why."""
    reasons: dict[Place, list[str]] = {}
    for benchmark in dict.fromkeys(name for r in results for name in r.metrics):
        own = {r.name: measured[r.name, benchmark] for r in results if benchmark in r.metrics}
        usual = own[_most({name: each.which for name, each in own.items()})]
        for name, each in own.items():
            if each.which != usual.which:
                other = (
                    f"on as many images, {each.images}, but of other names"
                    if each.images == usual.images
                    else f"on {each.images} images, where the other rows have {usual.images}"
                )
                reasons.setdefault((name, benchmark), []).append(f"{benchmark}: measured {other}; not compared.")
        stated = {r.name: r.settings.get(benchmark, {}).get("convention") for r in results if benchmark in r.metrics}
        known = {name: fields for name, fields in stated.items() if isinstance(fields, dict)}
        if not known:
            continue
        common = known[_most({name: _fields(fields) for name, fields in known.items()})]
        for name, fields in known.items():
            differing = [key for key in {**common, **fields} if key != "name" and common.get(key) != fields.get(key)]
            if differing:
                words = ", ".join(f"{key} {fields.get(key)} and not {common.get(key)}" for key in differing)
                reasons.setdefault((name, benchmark), []).append(
                    f"{benchmark}: by another convention, {words}; not compared."
                )
    return reasons


def _fields(convention: Mapping[str, Any]) -> str:
    return repr(sorted((key, repr(value)) for key, value in convention.items() if key != "name"))


def _most(values: Mapping[str, T]) -> str:
    """The first of those that have what the most have."""
    counts = Counter(values.values())
    return max(values, key=lambda name: counts[values[name]])  # the first of equal ones


def _settings_apart(results: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """A note for each setting of responses in which rows differ, and the rows that have it otherwise than the most."""
    stated: dict[str, dict[str, str]] = {}
    for r in results:
        names = dict.fromkeys(name for own in r.settings.values() for name in own if name not in NOT_OF_RESPONSES)
        for name in names:
            values = dict.fromkeys(settings_text({name: own[name]}) for own in r.settings.values() if name in own)
            stated.setdefault(name, {})[r.name] = " and ".join(values)
    notes = []
    for values in stated.values():
        usual = values[_most(values)]
        if others := [name for name, value in values.items() if value != usual]:
            told = "; ".join(f"{name}: {values[name]}" for name in others)
            notes.append((f"Responses came about otherwise: {told}; the other rows: {usual}.", others))
    return notes


def _reading(result: Results) -> str:
    readings = dict.fromkeys(str(own["reading"]) for own in result.settings.values() if "reading" in own)
    return ", ".join(readings)


def _costs(
    result: Results, results: Sequence[Results], measured: Mapping[Place, Measured], notes: _Notes
) -> dict[str, Cell]:
    """What is known of the costs of a method; where it is not of all benchmarks of the table, a note says of which."""
    everything = dict.fromkeys(name for r in results for name in r.metrics)
    images = {name: measured[result.name, name].images for name in result.metrics}
    known = {name: {b: own[name] for b, own in result.usage.items() if name in own and b in images} for name in COSTS}
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
