"""The whole comparison of methods on benchmarks, as one page of HTML that opens with nothing beside it.

A table of all metrics; and of each benchmark its curves, the distribution of its images, what every two methods differ by,
the best and the worst images of each method, and those on which the two best differ most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations, groupby
from pathlib import Path

import numpy as np

from lightning_sal import __version__
from lightning_sal.evaluation.curves import FILE, Curves
from lightning_sal.evaluation.entries import Entry, comparable, per_image, read_entries
from lightning_sal.evaluation.report_images import STYLE as OF_IMAGES
from lightning_sal.evaluation.report_images import Shots, unlike
from lightning_sal.evaluation.results import Results, joined, read_summary
from lightning_sal.evaluation.tables import (
    cells_of,
    columns,
    differences,
    heading,
    interval_text,
    measures_of,
    settings_text,
)
from lightning_sal.evaluation.usage import in_words
from lightning_sal.pages.charts import STYLE as OF_CHARTS
from lightning_sal.pages.charts import Series, distribution_chart, interval_bar, line_chart, swatch
from lightning_sal.pages.html import page_head, require_free, write_page
from lightning_sal.pages.tables import SCRIPT, scrolled, table_parts
from lightning_sal.pages.tables import STYLE as OF_TABLES
from lightning_sal.tasks import TASKS, Measure

GRAPHS = (  # title, horizontal and vertical axis, what is drawn on each
    ("Precision and recall", "recall", "precision"),
    ("F-measure over threshold", "threshold", "f_measure"),
    ("E-measure over threshold", "threshold", "e_measure"),
)
AXES = {"f_measure": "F-measure", "e_measure": "E-measure"}
STYLE = f"""
{OF_CHARTS}
{OF_IMAGES}
header p, .note, caption {{ opacity: .8 }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none }}
h2 {{ margin: 3rem 0 .6rem; padding-top: .6rem; border-top: 2px solid var(--rule); overflow-wrap: anywhere }}
h3 {{ margin: 1.8rem 0 .5rem }}
h4 {{ margin: 1.2rem 0 .4rem; font-size: 1rem; overflow-wrap: anywhere }}
p {{ max-width: 60rem; margin: .5rem 0 }}
{OF_TABLES}
td.words:nth-child(5) {{ min-width: 24rem }}
.charts {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)) }}
.charts > * {{ max-width: 44rem }}
.charts figcaption, .charts h4 {{ margin: 0 0 .4rem }}
figure {{ margin: 0; min-width: 0 }}
.legend {{ margin: .5rem 0 0; padding: 0; list-style: none; font-size: .9rem }}
.legend li {{ overflow-wrap: anywhere }}
details > summary {{ cursor: pointer; margin: .6rem 0 }}
footer {{ margin-top: 3rem; opacity: .8; font-size: .9rem }}
@media print {{ h2, h3, h4 {{ break-after: avoid }}
  details::details-content {{ content-visibility: visible; height: auto }} }}
"""


def write_report(folders: Sequence[Path], path: Path, metrics: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        folders: What `lightning test` or `score` has written; folders of one method are joined.
        path: The page, which must not be there yet; its folder is made.
        metrics: Columns of the table, and those of them that images have for the rest; by default what papers report.

    Raises:
        FileExistsError: The page is there.
        FileNotFoundError: A folder holds no results.
        ValueError: Results do not fit together, or hold what is no number.
    """
    require_free(path)
    write_page(report(folders, metrics), path)


def report(folders: Sequence[Path], metrics: Sequence[str] = ()) -> str:
    """The page that `write_report` writes; arguments and errors as there."""
    each = [read_summary(folder) for folder in folders]
    results = joined(each)
    benchmarks = read_entries(folders, each)
    title = f"{_count(len(results), 'method')} on {_count(len(benchmarks), 'benchmark')}"
    links = "".join(
        f'<li><a href="#benchmark-{number}">{escape(name)}</a></li>' for number, name in enumerate(benchmarks)
    )
    sections = [
        f'<section id="benchmark-{number}"><h2>{escape(name)}: {escape(_title(entries[0].task))}</h2>'
        f"{_benchmark(entries, per_image(results, entries, metrics))}</section>"
        for number, (name, entries) in enumerate(benchmarks.items())
    ]
    return "".join(
        [
            page_head(title, STYLE),
            f"<header><h1>{title}</h1><p>{escape(', '.join(result.name for result in results))}</p></header>",
            f'<nav aria-label="Benchmarks"><ul>{links}</ul></nav><main>',
            f"<h2>All metrics</h2>{_overview(results, metrics)}",
            f"<h2>What is compared</h2>{_sources(benchmarks)}",
            *sections,
            f"</main><footer>Made by lightning-sal {escape(__version__)}.</footer><script>{SCRIPT}</script></html>\n",
        ]
    )


def _overview(results: Sequence[Results], metrics: Sequence[str]) -> str:
    """The table of `lightning-sal table`, benchmarks over their metrics."""
    chosen, measures = columns(results, metrics), measures_of(results)
    over = "".join(
        f'<th scope="colgroup" colspan="{len([*group])}">{escape(benchmark)}</th>'
        for benchmark, group in groupby(chosen, key=lambda column: column[0])
    )
    heads = ""
    for _, metric in chosen:
        lower = metric in measures and measures[metric].lower_is_better
        heads += (
            f'<th scope="col" data-first="{"ascending" if lower else "descending"}">'
            f"{escape(heading(results, metric))} {'↓' if lower else '↑'}</th>"
        )
    rows = ""
    for result, cells in cells_of(results, metrics, "<strong>{}</strong>".format):
        values = (result.metrics.get(benchmark, {}).get(metric, "") for benchmark, metric in chosen)
        name = escape(result.name)
        rows += f'<tr><th scope="row" data-value="{name}">{name}</th>'
        rows += "".join(f'<td data-value="{value}">{cell}</td>' for value, cell in zip(values, cells, strict=True))
        rows += "</tr>"
    head = f'<tr><td></td>{over}</tr><tr><th scope="col" class="words" data-first="ascending">method</th>{heads}</tr>'
    caption = "The best of each column in bold; ↑ more is better, ↓ less is."
    return scrolled(
        "All metrics", f'<table class="sortable"><caption>{caption}</caption>{table_parts(head, rows)}</table>'
    )


def _sources(benchmarks: Mapping[str, Sequence[Entry]]) -> str:
    """What each number comes from, and which images another method has and this one has not."""
    rows = ""
    for benchmark, entries in benchmarks.items():
        everything = {image for entry in entries for image in entry.images}
        for entry in entries:
            settings, took = settings_text(entry.settings) or "none stated", in_words(entry.usage)
            words = (entry.name, benchmark, _title(entry.task), str(entry.folder), settings, took)
            numbers = (len(entry.images), len(everything) - len(entry.images))
            rows += "<tr>" + "".join(f'<td class="words">{escape(word)}</td>' for word in words)
            rows += "".join(f"<td>{number}</td>" for number in numbers) + "</tr>"
    heads = "".join(
        f'<th scope="col" class="words">{head}</th>'
        for head in ("method", "benchmark", "task", "folder", "settings", "a response took")
    )
    heads += '<th scope="col">images</th><th scope="col">missing</th>'
    caption = "<caption>Missing are the images that another method has on the benchmark and this one has not.</caption>"
    return scrolled("What is compared", f"<table>{caption}{table_parts(f'<tr>{heads}</tr>', rows)}</table>")


def _benchmark(entries: Sequence[Entry], measures: Mapping[str, Measure]) -> str:
    parts = [unlike(entries), _curves(entries)]
    if not measures:
        return "".join([*parts, '<p class="note">Its images have no values of their own.</p>'])
    primary, *others = measures
    parts.append(f"<h3>Values of single images</h3>{_distribution(entries, primary, measures[primary])}")
    parts += [
        f"<details><summary>{escape(measures[name].heading)} of single images</summary>"
        f"{_distribution(entries, name, measures[name])}</details>"
        for name in others
    ]
    if len(entries) > 1:
        parts.append(f"<h3>What every two differ by</h3>{_pairs(entries, measures)}")
    parts.append(f"<h3>Images</h3>{Shots(entries, primary, measures[primary]).html()}")
    return "".join(parts)


def _curves(entries: Sequence[Entry]) -> str:
    """Precision over recall, and F and E over thresholds, of the methods that have them."""
    figures = []
    for title, x, y in GRAPHS:
        found = [entry for entry in entries if {"threshold", x, y} <= entry.curves.keys()]
        if not found:
            continue
        series = [Series(entry.name, entry.number, entry.curves[x], entry.curves[y]) for entry in found]
        told = [(entry, _peak(entry.curves, x, y)) for entry in found]
        label = f"{title}: " + "; ".join(f"{entry.name} {words}" for entry, words in told)
        legend = "".join(_legend_line(entry, words) for entry, words in told)
        figures.append(
            f'<figure class="card"><figcaption><h4>{title}</h4></figcaption>'
            f"{line_chart(label, series, AXES.get(x, x), AXES.get(y, y))}"
            f'<ul class="legend">{legend}</ul></figure>'
        )
    without = [entry.name for entry in entries if not entry.curves]
    note = f"No curves of {', '.join(without)}: no {FILE} in their folder has this benchmark." if without else ""
    shown = f'<h3>Curves</h3><div class="charts">{"".join(figures)}</div>' if figures else ""
    return shown + (f'<p class="note">{escape(note)}</p>' if note else "")


def _peak(curves: Curves, x: str, y: str) -> str:
    """What a legend says of a curve: its maximum and where it is; of precision and recall, both where F has its own."""
    of_threshold = x == "threshold"
    name = y if of_threshold else "f_measure"
    if name not in curves:
        return ""
    at = int(np.argmax(curves[name]))
    place = f"at threshold {curves['threshold'][at]:.3f}"
    if of_threshold:
        return f"at most {curves[y][at]:.3f}, {place}"
    return f"{y} {curves[y][at]:.3f} and {x} {curves[x][at]:.3f} where F is largest, {place}"


def _legend_line(entry: Entry, words: str) -> str:
    return f"<li>{swatch(entry.number)} {escape(entry.name)}{', ' * bool(words)}{words}</li>"


def _distribution(entries: Sequence[Entry], metric: str, measure: Measure) -> str:
    """Histograms, and the quantiles as numbers."""
    found = [(entry, [*entry.values(metric).values()]) for entry in entries]
    found = [(entry, values) for entry, values in found if values]
    label = f"Distribution of {measure.heading} over images; its quantiles stand in the table beside it"
    chart = distribution_chart(label, [Series(entry.name, entry.number, v) for entry, v in found], measure.heading)
    rows = ""
    for entry, values in found:
        numbers = [np.mean(values), *np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]
        cells = "".join(f"<td>{number:.3f}</td>" for number in numbers)
        name = f"{swatch(entry.number)} {escape(entry.name)}"
        rows += f'<tr><th scope="row">{name}</th><td>{len(values)}</td>{cells}</tr>'
    heads = "".join(
        f'<th scope="col">{head}</th>' for head in ("images", "mean", "5 %", "25 %", "median", "75 %", "95 %")
    )
    table = table_parts(f'<tr><th scope="col" class="words">method</th>{heads}</tr>', rows)
    return (
        f'<div class="charts"><figure class="card"><figcaption>{escape(measure.heading)}: shares of images; the thick line '
        f"is the middle half, the dot the median, the thin line 5 % to 95 %.</figcaption>{chart}</figure>"
        f"{scrolled(f'Quantiles of {measure.heading}', f'<table>{table}</table>')}</div>"
    )


def _pairs(entries: Sequence[Entry], measures: Mapping[str, Measure]) -> str:
    """The paired bootstrap of every two methods by each measure."""
    methods, doubtful = comparable(entries)
    found = differences(methods, [*measures])
    body = ""
    for metric, group in groupby(found, key=lambda each: each.metric):
        of_metric = [*group]
        most = max(max(abs(each.low), abs(each.high)) for each in of_metric) or 1.0
        for each in of_metric:
            first, second = entries[each.first], entries[each.second]
            alone = len(methods[each.first].keys() ^ methods[each.second].keys())
            sign = -1 if measures[metric].lower_is_better else 1
            better = first.name if sign * each.low > 0 and sign * each.high > 0 else second.name
            verdict = "not told apart" if each.low <= 0 <= each.high else f"{better} is better"
            body += (
                f'<tr><td class="words">{escape(measures[metric].heading)}</td>'
                f'<th scope="row">{escape(first.name)} − {escape(second.name)}</th><td>{each.mean:+.4f}</td>'
                f"<td>{interval_text(each)}</td><td>{interval_bar(each.mean, each.low, each.high, most)}</td>"
                f'<td class="words">{escape(verdict)}</td><td>{each.images}</td><td>{alone}</td></tr>'
            )
    heads = (("measure", "words"), ("difference", "words"), ("mean", ""), ("95 % interval", ""), ("around 0", ""))
    heads += (("", "words"), ("images", ""), ("of one alone", ""))
    head = "".join(f'<th scope="col" class="{kind}">{text}</th>' for text, kind in heads)
    words = (
        "Mean difference over the images that both have, and its 95 % interval over 10,000 bootstrap resamples of them "
        "(percentiles). Two methods are told apart where the interval excludes 0; of twenty intervals of methods that are "
        "alike, one does so by chance. Images that only one of the two has are counted last, and left out."
    )
    if doubtful:
        words += f" Left out as well: {_count(doubtful, 'image')} with several rows, whose number differs."
    pairs = {(each.first, each.second) for each in found}
    if apart := [pair for pair in combinations(range(len(entries)), 2) if pair not in pairs]:
        names = "; ".join(f"{entries[first].name} and {entries[second].name}" for first, second in apart)
        words += f" No image is measured by both {names}."
    return f"<p>{escape(words)}</p>" + scrolled(
        "Paired bootstrap", f"<table>{table_parts(f'<tr>{head}</tr>', body)}</table>"
    )


def _title(task: str) -> str:
    """A task in words; its name where this process does not know it."""
    return TASKS[task].title if task in TASKS else task


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
