"""Charts as SVG: every point where arithmetic by hand puts it, colours that stand out, names that break nothing."""

import re

import pytest

from lightning_sal.pages.charts import (
    BAR,
    BOTTOM,
    COLOURS,
    DASHES,
    INTERVAL,
    LEFT,
    RIGHT,
    TOP,
    Series,
    axis,
    distribution_chart,
    interval_bar,
    line_chart,
    style_class,
)
from lightning_sal.pages.html import STYLE


def points(svg: str) -> list[list[tuple[float, ...]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()] for line in re.findall(r'points="([^"]*)"', svg)
    ]


def test_points_of_a_line_are_where_its_values_say():
    """Both axes go from 0 to 1 by fifths: (0, 0) is the lower left corner, (1, 1) the upper right one."""
    lines = [Series("A", 0, [0, 0.5, 1], [0, 0.25, 1]), Series("B", 1, [0, 1], [1, 1])]
    first, second = points(line_chart("", lines, "recall", "precision"))
    assert first == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, BOTTOM - (BOTTOM - TOP) / 4), (RIGHT, TOP)]
    assert second == [(LEFT, TOP), (RIGHT, TOP)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.43, 0.97, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (-3, 12, [-5, 0, 5, 10, 15]),
        (0.7, 0.7, [0.2, 0.4, 0.6, 0.8, 1, 1.2]),  # one value has half of 1 on either side
        (0, 1e-6, [0, 2e-7, 4e-7, 6e-7, 8e-7, 1e-6]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, ticks):
    assert axis(low, high) == pytest.approx(ticks, abs=1e-12)


def test_bars_are_shares_of_images_on_one_scale():
    """All of A in the last of 40 bins, half of B in the first and half in the last: bars of full and of half height."""
    chart = distribution_chart("", [Series("A", 0, [1, 1]), Series("B", 1, [0, 1])], "S")
    for drawn, heights in zip(
        re.findall(r'class="bars" d="M[\d.]+ ([^"]*)"', chart), ([0, 1], [0.5, 0.5]), strict=True
    ):
        base = float(drawn.partition("V")[0])
        tops = [float(y) for y in re.findall(r"V([\d.]+)H", drawn)]
        assert len(tops) == 40
        assert [base - tops[0], base - tops[-1]] == [BAR * heights[0], BAR * heights[1]]
        assert set(tops[1:-1]) == {base}
    medians = [float(x) for x in re.findall(r'cx="([\d.]+)"', chart)]
    assert medians == [RIGHT, (LEFT + RIGHT) / 2]


def test_an_interval_is_drawn_around_zero():
    """Of -0.1 to 0.3, where pictures reach from -0.4 to 0.4: the middle of the picture is 0."""
    svg, span = interval_bar(0.1, -0.1, 0.3, 0.4), INTERVAL / 2 - 6
    x1, x2 = (float(re.search(rf'class="range".* {name}="([\d.]+)"', svg)[1]) for name in ("x1", "x2"))
    middle = float(re.search(r'cx="([\d.]+)"', svg)[1])
    assert [x1, middle, x2] == pytest.approx([INTERVAL / 2 + part * span for part in (-0.25, 0.25, 0.75)], abs=0.06)


def luminance(colour: str) -> float:
    """WCAG 2.1, relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_light_and_dark_paper():
    grounds = re.findall(r"--(?:paper|card): (#\w+)", STYLE)  # light paper and card, dark paper and card
    grounds = [ground if len(ground) == 7 else "#" + "".join(2 * c for c in ground[1:]) for ground in grounds]
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for light, dark in COLOURS:
        assert min(contrast(light, ground) for ground in grounds[:2]) >= 4.5, light
        assert min(contrast(dark, ground) for ground in grounds[2:]) >= 4.5, dark


def test_methods_differ_by_colour_or_dashes():
    several = len(COLOURS) * len(DASHES)
    assert len({style_class(number) for number in range(several)}) == several
    assert len({style_class(number).split()[0] for number in range(len(COLOURS))}) == len(COLOURS)


def test_names_are_escaped():
    said = "\"><script>alert(1)</script><b a='"
    for chart in (
        line_chart(said, [Series(said, 0, [0, 1], [0, 1])], said, said),
        distribution_chart(said, [Series(said, 0, [0, 1])], said),
    ):
        assert "<script" not in chart
        assert "<b" not in chart
        assert chart.count("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
