"""Tables of results: Markdown, CSV and LaTeX, the best of a column in bold; and paired bootstrap intervals."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lightning_sal.evaluation.results import Results, read_images, read_summary
from lightning_sal.tasks import Measure
from lightning_sal.tasks.measures import joined as joined_measures

_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
ROWS_AT_ONCE = 256  # resamples held in memory


def columns(results: Sequence[Results], metrics: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(benchmark, metric) of a table, in the order in which they first come; those that any method has.

    Raises:
        ValueError: No method has one of `metrics` on any benchmark.
    """
    benchmarks = dict.fromkeys(benchmark for result in results for benchmark in result.tasks)
    known = {(benchmark, metric) for r in results for benchmark, values in r.metrics.items() for metric in values}
    names = sorted({metric for _, metric in known})
    if unknown := [metric for metric in metrics if metric not in names]:
        raise ValueError(f"no results have the metric {unknown[0]!r}; there are {', '.join(names)}")
    wanted = metrics or [name for name, measure in measures_of(results).items() if measure.reported]
    wanted = [(benchmark, metric) for benchmark in benchmarks for metric in wanted]
    return [column for column in wanted if column in known]


def measures_of(results: Sequence[Results]) -> dict[str, Measure]:
    """What all of the results are measured by."""
    return joined_measures(result.measures for result in results)


def best(results: Sequence[Results], benchmark: str, metric: str) -> float | None:
    """The best value of a column, rounded as it is shown; None where no method has it."""
    values = [round(r.metrics[benchmark][metric], 3) for r in results if metric in r.metrics.get(benchmark, {})]
    lower = measures_of(results).get(metric, Measure(metric)).lower_is_better
    return (min if lower else max)(values, default=None)


def markdown(results: Sequence[Results], metrics: Sequence[str] = ()) -> str:
    """One row a method, one column a metric of a benchmark."""
    heads = [f"{benchmark} {_heading(results, metric)}" for benchmark, metric in columns(results, metrics)]
    lines = [["method", *heads], ["---", *["---:"] * len(heads)]]
    lines += [[_plain(r.name), *cells] for r, cells in _cells(results, metrics, "**{}**".format)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(results: Sequence[Results], metrics: Sequence[str] = ()) -> str:
    """The same for booktabs, benchmarks over their metrics."""
    chosen = columns(results, metrics)
    spans: dict[str, int] = {}
    for benchmark, _ in chosen:
        spans[benchmark] = spans.get(benchmark, 0) + 1
    over = " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{_escape(benchmark)}}}" for benchmark, n in spans.items())
    heads = " & ".join(_escape(_heading(results, metric)) for _, metric in chosen)
    rows = [
        " & ".join([_escape(r.name), *cells]) + r" \\" for r, cells in _cells(results, metrics, r"\textbf{{{}}}".format)
    ]
    body = [r"\toprule", rf" & {over} \\", rf"method & {heads} \\", r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{l{'c' * len(chosen)}}}", *body, r"\end{tabular}", ""])


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


def paired_bootstrap(
    ours: Sequence[float], theirs: Sequence[float], *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of ours - theirs over the same images, and the percentile interval of that mean under resampled images.

    Efron and Tibshirani 1993 (An introduction to the bootstrap).

    Args:
        ours: A value an image.
        theirs: Those of the other method, in the same order.
        resamples: Number of resamples, > 0.
        level: Coverage of the interval, in (0, 1).
        seed: Of the resamples.

    Returns:
        The mean, and the lower and the upper end of its interval.
    """
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    draw, means = np.random.default_rng(seed), []
    for start in range(0, resamples, ROWS_AT_ONCE):
        shape = min(ROWS_AT_ONCE, resamples - start), len(differences)
        means.append(differences[draw.integers(len(differences), size=shape)].mean(1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(differences.mean()), float(low), float(high)


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
        ours_by_image, theirs_by_image = (by_image(read_images(folder, benchmark)) for folder in (ours, theirs))
        if set(ours_by_image) != set(theirs_by_image):
            raise ValueError(f"{benchmark}: {ours} and {theirs} hold different images")
        pairs = [(row, theirs_by_image[image]) for image, row in ours_by_image.items()]
        for metric in metrics or per_image:
            both = [
                pair for pair in pairs if all(side.get(metric) for side in pair)
            ]  # an image may not be measured by it
            if not both:
                continue
            mean, low, high = paired_bootstrap(*([float(pair[side][metric]) for pair in both] for side in (0, 1)))
            what, interval = f"{benchmark} {metric}: {first.name} - {second.name}", f"[{low:+.4f}, {high:+.4f}]"
            lines.append(f"{what} = {mean:+.4f}, 95 % {interval}, {len(both)} images\n")
    return lines


def by_image(rows: Sequence[dict[str, str]]) -> dict[tuple[str, int], dict[str, str]]:
    """Rows by folder and file name of their image, or their key where it came from no file, and which of these it is."""
    seen: Counter[str] = Counter()
    named = {}
    for row in rows:
        name = "/".join(Path(row["image"]).parts[-2:]) or row["key"]
        seen[name] += 1
        named[name, seen[name]] = row
    return named


def _cells(
    results: Sequence[Results], metrics: Sequence[str], bold: Callable[[str], str]
) -> list[tuple[Results, list[str]]]:
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


def _heading(results: Sequence[Results], metric: str) -> str:
    """What a column is called: as papers call it where they report it, else by the name of the metric."""
    measure = measures_of(results).get(metric)
    return measure.heading if measure and measure.reported else metric


def _plain(name: str) -> str:
    return name.replace("|", r"\|")


def _escape(text: str) -> str:
    return text.translate(_LATEX)
