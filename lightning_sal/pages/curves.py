"""Curves of one run: charts side by side, in which each line has a colour of its own beside its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import commonpath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Lines = dict[str, list[tuple[int, float]]]  # name -> (step, value), in the order of steps

COLUMNS = 2
COLOURS = 10  # of matplotlib's cycle; what comes after is dashed


def figure(lines: Lines, charts: Mapping[str, Sequence[str]]) -> Figure:
    """Charts of scalars over steps; one that none of the lines belongs to is left out.

    Args:
        lines: Name of a scalar -> its values so far.
        charts: Title -> regular expressions of names, each matched from its beginning.
    """
    from matplotlib.figure import Figure  # not by pyplot, which would keep every figure of a training

    found = {title: own for title, names in charts.items() if (own := _matching(lines, names))}
    rows = max(1, -(-len(found) // COLUMNS))
    whole = Figure(figsize=(6.5 * COLUMNS, 2.1 * rows), layout="constrained")
    places = whole.subplots(rows, COLUMNS, sharex=True, squeeze=False).flat
    for place, (title, own) in zip(places, found.items(), strict=False):
        _chart(place, title, own)
    for empty in list(whole.axes)[len(found) :]:
        empty.set_axis_off()
    return whole


def _matching(lines: Lines, names: Sequence[str]) -> Lines:
    return {name: points for name, points in lines.items() if any(re.match(pattern, name) for pattern in names)}


def _chart(axes: Any, title: str, lines: Lines) -> None:
    shared = commonpath([name.rpartition("/")[0] for name in lines])
    shared = shared and f"{shared}/"
    for number, (name, points) in enumerate(lines.items()):
        style, steps, values = "-" if number < COLOURS else "--", *zip(*points, strict=True)
        label = name.removeprefix(shared)
        axes.plot(
            steps, values, style, color=f"C{number % COLOURS}", label=label, linewidth=1.3, marker=".", markersize=4
        )
    axes.set_title(f"{title} · {shared}" if shared else title, fontsize=9, loc="left")
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8, labelbottom=True)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=1.2)
