"""Charts of several methods as SVG inside a page of HTML: lines, distributions, intervals; no script and no library.

A method has one number, and by it one colour and one pattern of dashes, wherever it is drawn. Coordinates are units of the
`viewBox`: x to the right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 400, 300  # of a chart of lines
LEFT, RIGHT, TOP, BOTTOM = 46, 388, 12, 252  # edges of what is plotted
ROW, BAR = 78, 34  # height of a method among the distributions, and of its highest bar
NAME = 48  # most letters of a name there
BINS = 40
INTERVAL = 160  # width of an interval
TICKS = 6  # most ticks of an axis, but for the one at its end

# On light and on dark paper; each stands out from it by a contrast of 4.5 or more.
COLOURS = (
    ("#1f5fc4", "#7db0ff"),
    ("#a84f00", "#ffab57"),
    ("#17713a", "#6fd38b"),
    ("#b0217f", "#ff8ad1"),
    ("#00707a", "#4fd6e0"),
    ("#c02626", "#ff8a80"),
    ("#6c45c7", "#b8a1ff"),
    ("#665f00", "#d8cf5a"),
)
DASHES = ("none", "7 3", "2 3")  # of no common factor with the colours, so that few methods have both alike


def _palette(which: int) -> str:
    return " ".join(f".m{number} {{ --own: {pair[which]} }}" for number, pair in enumerate(COLOURS))


STYLE = f"""
{_palette(0)}
@media (prefers-color-scheme: dark) {{ {_palette(1)} }}
{" ".join(f".d{number} {{ --dash: {dash} }}" for number, dash in enumerate(DASHES))}
svg.chart {{ display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif }}
svg text {{ fill: var(--ink) }}
svg .grid {{ stroke: var(--rule); fill: none }}
svg .line {{ stroke: var(--own); stroke-dasharray: var(--dash); stroke-width: 2; fill: none; stroke-linejoin: round }}
svg .bars {{ fill: var(--own); opacity: .45 }}
svg .range {{ stroke: var(--own); stroke-width: 1.5 }}
svg .half {{ stroke: var(--own); stroke-width: 6 }}
svg .middle {{ fill: var(--card); stroke: var(--own); stroke-width: 2.5 }}
"""


@dataclass(frozen=True, slots=True)
class Series:
    """What one method adds to a chart.

    Args:
        name: Of the method.
        number: From 0; it says which colour.
        x: Where its values stand; for a distribution the values themselves.
        y: Its values; of a distribution none.
    """

    name: str
    number: int
    x: Sequence[float]
    y: Sequence[float] = ()


def style_class(number: int) -> str:
    """The classes that give an element the colour and the dashes of a method."""
    return f"m{number % len(COLOURS)} d{number % len(DASHES)}"


def swatch(number: int) -> str:
    """A piece of the line of a method, for a legend."""
    return (
        f'<svg class="{style_class(number)}" width="28" height="10" aria-hidden="true">'
        '<line class="line" x1="0" y1="5" x2="28" y2="5"/></svg>'
    )


def axis(low: float, high: float) -> list[float]:
    """Ticks at round values (1, 2 or 5 times a power of 10), of which the first and the last enclose what is drawn.

    Args:
        low: The least value.
        high: The largest one.

    Example:
        >>> axis(0.43, 0.97)
        [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    """
    if low == high:
        low, high = low - 0.5, high + 0.5
    power = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if high - low <= TICKS * step * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def line_chart(label: str, series: Sequence[Series], x_name: str, y_name: str) -> str:
    """A line a method over shared axes.

    Args:
        label: What is seen, in words, for those who do not see it.
        series: One or more, each of one point or more.
        x_name: Of the horizontal axis.
        y_name: Of the vertical one.
    """
    x_ticks = axis(min(min(each.x) for each in series), max(max(each.x) for each in series))
    y_ticks = axis(min(min(each.y) for each in series), max(max(each.y) for each in series))
    parts = [_vertical(x_ticks, TOP, BOTTOM)]
    for tick in y_ticks:
        y = _place(tick, y_ticks, BOTTOM, TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{_number(tick)}</text>')
    for each in series:
        at = (
            f"{_place(x, x_ticks, LEFT, RIGHT)},{_place(y, y_ticks, BOTTOM, TOP)}"
            for x, y in zip(each.x, each.y, strict=True)
        )
        parts.append(
            f'<g class="{style_class(each.number)}"><title>{escape(each.name)}</title>'
            f'<polyline class="line" points="{" ".join(at)}"/></g>'
        )
    middle = (TOP + BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>')
    return _svg(label, HEIGHT, parts)


def distribution_chart(label: str, series: Sequence[Series], x_name: str) -> str:
    """A histogram a method over one axis, all with the same bins and scale of shares.

    Below each stand a line from the 5 % to the 95 % quantile, a thick one between the quartiles, and a dot at the median.

    Args:
        label: As for `line_chart`.
        series: One or more; `x` are the values, one or more.
        x_name: Of the axis.
    """
    ticks = axis(min(min(each.x) for each in series), max(max(each.x) for each in series))
    shares = [np.histogram(each.x, BINS, (ticks[0], ticks[-1]))[0] / len(each.x) for each in series]
    highest = max(share.max() for share in shares)
    bottom = TOP + ROW * len(series)
    parts = [_vertical(ticks, TOP, bottom)]
    for row, (each, share) in enumerate(zip(series, shares, strict=True)):
        top = TOP + ROW * row
        base = top + BAR + 24
        low, first, middle, third, high = (
            _place(value, ticks, LEFT, RIGHT) for value in np.quantile(each.x, (0.05, 0.25, 0.5, 0.75, 0.95))
        )
        edges = [_place(edge, ticks, LEFT, RIGHT) for edge in np.linspace(ticks[0], ticks[-1], BINS + 1)]
        steps = "".join(
            f"V{round(base - BAR * part / highest, 1)}H{edge}" for part, edge in zip(share, edges[1:], strict=True)
        )
        parts.append(
            f'<g class="{style_class(each.number)}"><title>{escape(each.name)}</title>'
            f'<text x="{LEFT + 4}" y="{top + 15}">{escape(_shortened(each.name))}</text>'
            f'<path class="bars" d="M{LEFT} {base}{steps}V{base}z"/>'
            f'<line class="range" x1="{low}" y1="{base + 8}" x2="{high}" y2="{base + 8}"/>'
            f'<line class="half" x1="{first}" y1="{base + 8}" x2="{third}" y2="{base + 8}"/>'
            f'<circle class="middle" cx="{middle}" cy="{base + 8}" r="4"/></g>'
        )
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{bottom + 40}" text-anchor="middle">{escape(x_name)}</text>')
    return _svg(label, bottom + 48, parts)


def interval_bar(mean: float, low: float, high: float, most: float) -> str:
    """An interval and its middle around 0, which is in the middle of the picture.

    Args:
        mean: What the dot shows.
        low: Where the line begins.
        high: Where it ends.
        most: The largest distance from 0 that all such pictures of a table show, > 0.
    """
    ends = [-most, most]
    x1, x, x2 = (_place(value, ends, 6, INTERVAL - 6) for value in (low, mean, high))
    return (
        f'<svg width="{INTERVAL}" height="16" aria-hidden="true">'
        f'<line class="grid" x1="{INTERVAL / 2}" y1="0" x2="{INTERVAL / 2}" y2="16"/>'
        f'<g style="--own: var(--ink)"><line class="range" x1="{x1}" y1="8" x2="{x2}" y2="8"/>'
        f'<circle class="middle" cx="{x}" cy="8" r="3"/></g></svg>'
    )


def _vertical(ticks: Sequence[float], top: float, bottom: float) -> str:
    """The lines of a horizontal axis, and the numbers below."""
    return "".join(
        f'<line class="grid" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>'
        f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_number(tick)}</text>'
        for tick, x in ((tick, _place(tick, ticks, LEFT, RIGHT)) for tick in ticks)
    )


def _place(value: float, ticks: Sequence[float], first: float, last: float) -> float:
    """Where a value stands between the places of the first and the last tick."""
    return round(float(first + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (last - first)), 1)


def _number(value: float) -> str:
    return f"{value:.6g}"


def _shortened(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _svg(label: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"
