"""The leaderboard as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping

from lightning_sal.evaluation.leaderboard import Cell, Leaderboard, Line
from lightning_sal.evaluation.tables import BOLD, LATEX_BOLD, latex_lines, latex_text, markdown_lines

RAISED = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")


def marks(notes: tuple[int, ...]) -> str:
    """The numbers of notes, raised."""
    return ",".join(map(str, notes)).translate(RAISED)


def has_readings(board: Leaderboard) -> bool:
    """Whether any row says how its responses were read, so that there is a column of it."""
    return any(line.reading for line in board.lines)


def rank_text(line: Line) -> str:
    """Its rank; empty where it has none."""
    return "" if line.rank is None else f"{line.rank:.2f}"


def markdown(board: Leaderboard) -> str:
    """The table, and below it what is to be known of it."""
    heads = [
        "method",
        "rank",
        *(f"{benchmark} {board.measures[metric].heading}" for benchmark, metric in board.columns),
    ]
    table = markdown_lines(
        [*heads, *_heads_behind(board)], [_row(board, line, str, BOLD, marks) for line in board.lines]
    )
    notes = [f"{marks((number,))} {text}" for number, text in enumerate(board.notes, 1)]
    return "\n\n".join([table.rstrip("\n"), board.about, *notes]) + "\n"


def latex(board: Leaderboard) -> str:
    """The same for booktabs, the notes below."""
    heads = [(benchmark, board.measures[metric].heading) for benchmark, metric in board.columns]
    behind = [("", head) for head in _heads_behind(board)]

    def raised(notes: tuple[int, ...]) -> str:
        return rf"\textsuperscript{{{','.join(map(str, notes))}}}" if notes else ""

    rows = [_row(board, line, latex_text, LATEX_BOLD, raised) for line in board.lines]
    table = latex_lines([("", "method"), ("", "rank"), *heads, *behind], rows)
    notes = [f"{raised((number,))} {latex_text(text)}" for number, text in enumerate(board.notes, 1)]
    return table + "".join(f"\n\\par\\footnotesize {text}\n" for text in [latex_text(board.about), *notes])


def comma_separated(board: Leaderboard) -> str:
    """One line a value, unrounded; what the answers took stands under its name, over all benchmarks."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "benchmark", "metric", "value", "low", "high", "notes"])

    def write(line: Line, benchmark: str, metric: str, cell: Cell) -> None:
        notes = " ".join(board.notes[number - 1] for number in (*cell.notes, *line.notes))
        writer.writerow([line.result.name, benchmark, metric, cell.value, *(cell.interval or ("", "")), notes])

    for line in board.lines:
        if line.rank is not None:
            write(line, "", "rank", Cell(line.rank))
        for (benchmark, metric), cell in line.cells.items():
            write(line, benchmark, metric, cell)
        for name, cell in line.costs.items():
            write(line, "", name, cell)
    return buffer.getvalue()


def _heads_behind(board: Leaderboard) -> list[str]:
    return [*(cost.heading for cost in board.costs.values()), *["reading"] * has_readings(board)]


def _row(
    board: Leaderboard,
    line: Line,
    words: Callable[[str], str],
    bold: Callable[[str], str],
    raised: Callable[[tuple[int, ...]], str],
) -> list[str]:
    """The texts of a row; an empty one where there is nothing."""
    cells = []
    for column in board.columns:
        cell = line.cells.get(column)
        if cell is None:
            cells.append("")
            continue
        value = f"{cell.value:.3f}"
        interval = "" if cell.interval is None else " [{:.3f}, {:.3f}]".format(*cell.interval)
        cells.append(f"{bold(value) if cell.best else value}{raised(cell.notes)}{interval}")
    for name, cost in board.costs.items():
        cell = line.costs.get(name)
        cells.append("" if cell is None else cost.form.format(cell.value) + raised(cell.notes))
    reading = [words(line.reading)] * has_readings(board)
    return [f"{words(line.result.name)}{raised(line.notes)}", rank_text(line), *cells, *reading]


FORMATS: Mapping[str, Callable[[Leaderboard], str]] = {
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}
