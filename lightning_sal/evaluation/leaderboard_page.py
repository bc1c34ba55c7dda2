"""The leaderboard as one page of HTML that opens with nothing beside it, with the images on which two models differ most."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from lightning_sal import __version__
from lightning_sal.errors import UsageError
from lightning_sal.evaluation.entries import read_entries
from lightning_sal.evaluation.leaderboard import Cell, Leaderboard, Line, primaries
from lightning_sal.evaluation.leaderboard_text import has_readings, rank_text
from lightning_sal.evaluation.report_images import STYLE as OF_IMAGES
from lightning_sal.evaluation.report_images import Shots, unlike
from lightning_sal.evaluation.results import read_summary
from lightning_sal.evaluation.tables import settings_text
from lightning_sal.internals.parser import did_you_mean
from lightning_sal.pages.charts import STYLE as OF_CHARTS
from lightning_sal.pages.html import page_head, write_page
from lightning_sal.pages.tables import SCRIPT, scrolled, table_parts
from lightning_sal.pages.tables import STYLE as OF_TABLES

STYLE = f"""
{OF_CHARTS}
{OF_TABLES}
{OF_IMAGES}
p {{ max-width: 60rem; margin: .5rem 0 }}
h2 {{ margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 2px solid var(--rule); overflow-wrap: anywhere }}
h3 {{ margin: 1.8rem 0 .5rem; overflow-wrap: anywhere }}
.sortable {{ margin-top: 1rem }}
.sortable td {{ white-space: nowrap; vertical-align: top }}
.sortable td small {{ opacity: .75 }}
.sortable :is(tbody th, thead tr + tr th:first-child) {{ position: sticky; left: 0; background: var(--paper);
  min-width: min(8rem, 32vw); max-width: 40vw; overflow-wrap: anywhere }}
.sortable tbody th {{ vertical-align: top }}
.sortable thead .words:not(:first-child) {{ text-align: right }}
.sortable thead tr:first-child th {{ text-align: center }}
.notes, .note {{ font-size: .9rem; opacity: .85 }}
.notes {{ padding-left: 1.4rem; max-width: 60rem; overflow-wrap: anywhere }}
figure {{ margin: 0; min-width: 0 }}
details > summary {{ cursor: pointer; margin: .6rem 0 }}
footer {{ margin-top: 3rem; opacity: .8; font-size: .9rem }}
"""


def write_leaderboard(board: Leaderboard, folders: Sequence[Path], path: Path, two: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        board: The table.
        folders: What it was read from.
        path: The page.
        two: Names of the models whose images are shown side by side; by default those of the first two rows.

    Raises:
        UsageError: There is no such model, or it is one and the same.
        ValueError: A row of an image lacks what it should have.
    """
    write_page(leaderboard_page(board, folders, two), path)


def leaderboard_page(board: Leaderboard, folders: Sequence[Path], two: Sequence[str] = ()) -> str:
    """The page that `write_leaderboard` writes; arguments and errors as there."""
    names = [line.result.name for line in board.lines]
    two = _two(names, two)
    title = f"Leaderboard: {len(names)} model{'s' * (len(names) != 1)}"
    notes = "".join(f'<li id="note-{number}">{escape(text)}</li>' for number, text in enumerate(board.notes, 1))
    return "".join(
        [
            page_head(title, STYLE),
            f"<header><h1>{title}</h1></header><main>{_table(board)}",
            f"<p>{escape(board.about)} The best of each column in bold; ↑ more is better, ↓ less is.</p>",
            f'<ol class="notes">{notes}</ol>' if notes else "",
            _settings(board),
            f"<h2>{' and '.join(map(escape, two))} side by side</h2>{_side_by_side(folders, two)}" if two else "",
            f"</main><footer>Made by lightning-sal {escape(__version__)}.</footer><script>{SCRIPT}</script></html>\n",
        ]
    )


def _two(names: Sequence[str], two: Sequence[str]) -> Sequence[str]:
    for name in two:
        if name not in names:
            hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
            raise UsageError(f"--worst: no row is called {name!r}{hint}")
    if len(set(two)) == 1:
        raise UsageError(f"--worst compares two models, and {two[0]!r} is one")
    return two or (names[:2] if len(names) > 1 else ())


def _table(board: Leaderboard) -> str:
    """Benchmarks over their metrics, and behind them what the answers took."""
    over, heads = "<td></td><td></td>", _head("method", "ascending", words=True) + _head("rank", "ascending")
    for benchmark, group in groupby(board.columns, key=lambda column: column[0]):
        metrics = [board.measures[metric] for _, metric in group]
        over += f'<th scope="colgroup" colspan="{len(metrics)}">{escape(benchmark)}</th>'
        for each in metrics:
            arrow, first = ("↓", "ascending") if each.lower_is_better else ("↑", "descending")
            heads += _head(f"{each.heading} {arrow}", first)
    heads += "".join(_head(cost.heading, "ascending") for cost in board.costs.values())
    heads += _head("reading", "ascending", words=True) * has_readings(board)
    over += "<td></td>" * (len(board.costs) + has_readings(board))
    rows = "".join(_row(board, line) for line in board.lines)
    table = table_parts(f"<tr>{over}</tr><tr>{heads}</tr>", rows)
    return scrolled("Leaderboard", f'<table class="sortable">{table}</table>')


def _head(text: str, first: str, *, words: bool = False) -> str:
    return f'<th scope="col"{" class=words" * words} data-first="{first}">{escape(text)}</th>'


def _row(board: Leaderboard, line: Line) -> str:
    name = escape(line.result.name)
    cells = [f'<th scope="row" data-value="{name}">{name}{_marks(line.notes)}</th>']
    cells.append(f'<td data-value="{"" if line.rank is None else line.rank}">{rank_text(line)}</td>')
    cells += [_cell(line.cells.get(column), "{:.3f}") for column in board.columns]
    cells += [_cell(line.costs.get(name), cost.form) for name, cost in board.costs.items()]
    reading = escape(line.reading)
    cells += [f'<td data-value="{reading}">{reading}</td>'] * has_readings(board)
    return f"<tr>{''.join(cells)}</tr>"


def _cell(cell: Cell | None, form: str) -> str:
    if cell is None:
        return '<td data-value=""></td>'
    value = form.format(cell.value)
    shown = f"<strong>{value}</strong>" if cell.best else value
    interval = "" if cell.interval is None else "<br><small>[{:.3f}, {:.3f}]</small>".format(*cell.interval)
    return f'<td data-value="{cell.value}">{shown}{_marks(cell.notes)}{interval}</td>'


def _marks(notes: Sequence[int]) -> str:
    links = ", ".join(f'<a href="#note-{number}">{number}</a>' for number in notes)
    return f"<sup>{links}</sup>" if links else ""


def _settings(board: Leaderboard) -> str:
    """How the responses of each row came about on each benchmark, and how they were measured."""
    rows = "".join(
        f'<tr><th scope="row">{escape(line.result.name)}</th><td class="words">{escape(benchmark)}</td>'
        f'<td class="words">{escape(settings_text(line.result.settings.get(benchmark, {})) or "none stated")}</td></tr>'
        for line in board.lines
        for benchmark in line.result.metrics
    )
    heads = "".join(f'<th scope="col" class="words">{head}</th>' for head in ("method", "benchmark", "settings"))
    table = f"<table>{table_parts(f'<tr>{heads}</tr>', rows)}</table>"
    return f"<details><summary>Settings of each row</summary>{scrolled('Settings', table)}</details>"


def _side_by_side(folders: Sequence[Path], two: Sequence[str]) -> str:
    """Of each benchmark that both have, the images on which one of the two is better by most."""
    each = [(folder, summary) for folder in folders if (summary := read_summary(folder)).name in two]
    results = [summary for _, summary in each]
    first, numbers = primaries(results), {name for result in results for name in result.measures} - {"malformed"}
    sections = []
    for benchmark, entries in read_entries([folder for folder, _ in each], results).items():
        metric = first.get(benchmark)
        ours, *theirs = sorted(entries, key=lambda entry: two.index(entry.name))
        if not theirs or metric is None or not (ours.values(metric) and theirs[0].values(metric)):
            continue
        measure = next(result.measure(metric) for result in results if metric in result.measures)
        shots = Shots([ours, *theirs], metric, measure, numbers)
        shown = unlike(entries) + shots.with_lacking(shots.differing(ours, *theirs))
        sections.append(f"<section><h3>{escape(benchmark)}, by {escape(measure.heading)}</h3>{shown}</section>")
    return "".join(sections) or "<p>They share no benchmark whose images have the same measure.</p>"
