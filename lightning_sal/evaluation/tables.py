"""Tables of results: Markdown, CSV and LaTeX, the best of a column in bold; and what two methods differ by."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

from lightning_sal.evaluation.bootstrap import bootstrap
from lightning_sal.evaluation.results import Results, read_images, read_summary
from lightning_sal.internals.parser import did_you_mean
from lightning_sal.tasks import Measure
from lightning_sal.tasks.measures import joined as joined_measures

_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)

BOLD, LATEX_BOLD = "**{}**".format, r"\textbf{{{}}}".format

Images = dict[tuple[str, int], dict[str, str]]  # (folder and file, which of this name) -> row


def columns(results: Sequence[Results], metrics: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(benchmark, metric) of a table, in the order in which they first come; those that any method has.

    Raises:
        ValueError: No method has one of `metrics` on any benchmark.
    """
    benchmarks = dict.fromkeys(benchmark for result in results for benchmark in result.tasks)
    known = {(benchmark, metric) for r in results for benchmark, values in r.metrics.items() for metric in values}
    names = sorted({metric for _, metric in known})
    if unknown := [metric for metric in metrics if metric not in names]:
        hint = did_you_mean(unknown[0], names) or f"; there are {', '.join(names)}"
        raise ValueError(f"no results have the metric {unknown[0]!r}{hint}")
    wanted = metrics or [name for name, measure in measures_of(results).items() if measure.reported]
    wanted = [(benchmark, metric) for benchmark in benchmarks for metric in wanted]
    return [column for column in wanted if column in known]


def measures_of(results: Sequence[Results]) -> dict[str, Measure]:
    """What all of the results are measured by."""
    return joined_measures(result.measures for result in results)


def conventions_apart(conventions: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Where methods on one benchmark are measured by different conventions, so that their values cannot be compared.

    Args:
        conventions: Name of a method -> the fields of its convention; those that state none are passed over.

    Returns:
        Each field that differs -> name of a method -> its value.
    """
    stated = {method: fields for method, fields in conventions.items() if isinstance(fields, dict)}
    names = dict.fromkeys(name for fields in stated.values() for name in fields if name != "name")
    values = {name: {method: fields.get(name) for method, fields in stated.items()} for name in names}
    return {name: each for name, each in values.items() if len({str(value) for value in each.values()}) > 1}


def best(results: Sequence[Results], benchmark: str, metric: str) -> float | None:
    """The best value of a column, rounded as it is shown; None where no method has it."""
    values = [round(r.metrics[benchmark][metric], 3) for r in results if metric in r.metrics.get(benchmark, {})]
    lower = measures_of(results).get(metric, Measure(metric)).lower_is_better
    return (min if lower else max)(values, default=None)


def markdown(results: Sequence[Results], metrics: Sequence[str] = ()) -> str:
    """One row a method, one column a metric of a benchmark."""
    heads = [f"{benchmark} {heading(results, metric)}" for benchmark, metric in columns(results, metrics)]
    return markdown_lines(["method", *heads], [[r.name, *cells] for r, cells in cells_of(results, metrics, BOLD)])


def markdown_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of which the first column is words, the others numbers."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(map(_plain, line))} |\n" for line in lines)


def latex(results: Sequence[Results], metrics: Sequence[str] = ()) -> str:
    """The same for booktabs, benchmarks over their metrics."""
    heads = [(benchmark, heading(results, metric)) for benchmark, metric in columns(results, metrics)]
    rows = [[latex_text(r.name), *cells] for r, cells in cells_of(results, metrics, LATEX_BOLD)]
    return latex_lines([("", "method"), *heads], rows)


def latex_lines(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """A tabular; heads are (what stands over several columns, head of the column), rows are LaTeX."""
    spans = [(over, len([*group])) for over, group in groupby(heads, key=lambda head: head[0])]
    over = " & ".join(
        rf"\multicolumn{{{n}}}{{c}}{{{latex_text(name)}}}" if name else " & " * (n - 1) for name, n in spans
    )
    lines = [" & ".join(latex_text(head) for _, head in heads), *map(" & ".join, rows)]
    head, *body = [rf"{line} \\" for line in lines]
    ruled = [r"\toprule", rf"{over} \\", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{l{'c' * (len(heads) - 1)}}}", *ruled, r"\end{tabular}", ""])


def comma_separated(results: Sequence[Results], metrics: Sequence[str] = ()) -> str:
    """One line a value, unrounded: method, benchmark, task, metric, value."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "benchmark", "task", "metric", "value"])
    for r in results:
        for benchmark, values in r.metrics.items():
            wanted = metrics or values
            writer.writerows([r.name, benchmark, r.tasks[benchmark], m, values[m]] for m in wanted if m in values)
    return buffer.getvalue()


FORMATS: Mapping[str, Callable[[Sequence[Results], Sequence[str]], str]] = {
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean difference of two methods over the images that both measure, and its 95 % interval.

    Args:
        metric: What is compared.
        first: Number of the method from which is subtracted.
        second: Number of the one that is.
        mean: Of first - second.
        low: Lower end of the interval.
        high: Its upper end.
        images: How many there are.
    """

    metric: str
    first: int
    second: int
    mean: float
    low: float
    high: float
    images: int


def differences(methods: Sequence[Images], metrics: Sequence[str]) -> list[Difference]:
    """Every two methods by each metric, without those that share no image which both measure.

    Args:
        methods: The rows of each, by image.
        metrics: Names of columns.
    """
    images = sorted({image for rows in methods for image in rows})
    together: dict[bytes, list[tuple[str, int, int, np.ndarray]]] = {}  # which images -> what is measured on just these
    for metric in metrics:
        values = [
            np.array([float(rows.get(image, {}).get(metric) or "nan") for image in images]) for rows in methods
        ]  # an image may not be measured by it
        for first, second in combinations(range(len(methods)), 2):
            each = values[first] - values[second]
            known = ~np.isnan(each)
            if known.any():
                together.setdefault(known.tobytes(), []).append((metric, first, second, each[known]))
    found = [
        Difference(metric, first, second, *interval, len(each))
        for group in together.values()
        for (metric, first, second, each), interval in zip(
            group, bootstrap(np.stack([each for *_, each in group], axis=1)), strict=True
        )
    ]
    return sorted(found, key=lambda each: (metrics.index(each.metric), each.first, each.second))


def difference_lines(ours: Path, theirs: Path, metrics: Sequence[str] = ()) -> list[str]:
    """A line for each metric, over the images that have it in both, of each benchmark that two folders share.

    Images are the same where the file and its folder are called the same, wherever the benchmark lies.

    Raises:
        ValueError: They share no benchmark, or not the images of one; or a metric is no mean over images.
    """
    first, second = read_summary(ours), read_summary(theirs)
    per_image = [name for name, measure in measures_of([first, second]).items() if measure.per_image]
    if wrong := [metric for metric in metrics if metric not in per_image]:
        raise ValueError(f"{wrong[0]!r} is no mean over images that can be resampled; use {', '.join(per_image)}")
    shared = [benchmark for benchmark in first.tasks if benchmark in second.tasks]
    if not shared:
        raise ValueError(f"{ours} and {theirs} share no benchmark")
    lines = []
    for benchmark in shared:
        both = [by_image(read_images(folder, benchmark)) for folder in (ours, theirs)]
        if set(both[0]) != set(both[1]):
            raise ValueError(f"{benchmark}: {ours} and {theirs} hold different images")
        for each in differences(both, metrics or per_image):
            what, interval = f"{benchmark} {each.metric}: {first.name} - {second.name}", interval_text(each)
            lines.append(f"{what} = {each.mean:+.4f}, 95 % {interval}, {each.images} images\n")
    return lines


def interval_text(each: Difference) -> str:
    """The 95 % interval of a difference."""
    return f"[{each.low:+.4f}, {each.high:+.4f}]"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in words, those within others in brackets."""
    return ", ".join(
        f"{name} ({settings_text(value)})" if isinstance(value, dict) else f"{name} {value}"
        for name, value in settings.items()
    )


def by_image(rows: Sequence[dict[str, str]]) -> Images:
    """Rows by folder and file name of their image, or their key where it came from no file, and which of these it is."""
    seen: Counter[str] = Counter()
    named: Images = {}
    for row in rows:
        name = "/".join(row["image"].rsplit("/", 2)[-2:]) or row["key"]
        seen[name] += 1
        named[name, seen[name]] = row
    return named


def cells_of(
    results: Sequence[Results], metrics: Sequence[str], bold: Callable[[str], str]
) -> list[tuple[Results, list[str]]]:
    """Each row of a table: the method, and its values as they are shown, the best of a column by `bold`."""
    chosen = columns(results, metrics)
    tops = {column: best(results, *column) for column in chosen}
    rows = []
    for r in results:
        cells = []
        for benchmark, metric in chosen:
            value = r.metrics.get(benchmark, {}).get(metric)
            shown = "-" if value is None else f"{value:.3f}"
            is_best = value is not None and round(value, 3) == tops[benchmark, metric] and len(results) > 1
            cells.append(bold(shown) if is_best else shown)
        rows.append((r, cells))
    return rows


def heading(results: Sequence[Results], metric: str) -> str:
    """What a column is called: as papers call it where they report it, else by the name of the metric."""
    measure = measures_of(results).get(metric)
    return measure.heading if measure and measure.reported else metric


def _plain(name: str) -> str:
    return name.replace("|", r"\|")


def latex_text(text: str) -> str:
    """Words as LaTeX shows them."""
    return text.translate(_LATEX)
