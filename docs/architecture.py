"""A hook of mkdocs: draws the rooms of the package and their imports, and lists what each room says that it holds."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from html import escape
from itertools import pairwise
from pathlib import Path

from imports import PACKAGE, Graph, reached, read_imports, room_of, rooms

PICTURE, TABLE = "<!-- picture of the rooms -->", "<!-- table of the rooms -->"
BOX, THREAD, GAP = 104, 10, 14  # widths in pixels: of a box, of a long arrow that passes a floor, between them
HEIGHT, FLOOR = 30, 74  # heights in pixels: of a box, of a floor

Node = tuple[str, ...]  # (room,), or (from, to, floor) where a long arrow passes a floor


def on_page_markdown(markdown: str, **_: object) -> str:
    if PICTURE not in markdown:
        return markdown
    return markdown.replace(PICTURE, picture(read_imports(PACKAGE))).replace(TABLE, table(PACKAGE))


def table(package: Path) -> str:
    """A row a room: the first sentence of the docstring of its folder or file."""
    files = [*package.glob("*/__init__.py"), *package.glob("[a-z]*.py")]
    names = {path: path.stem if path.parent == package else f"{path.parent.name}/" for path in files}
    docstrings = {names[path]: ast.get_docstring(ast.parse(path.read_text())) or "" for path in files}
    rows = [f"| `{name}` | {docstrings[name].partition(chr(10))[0]} |" for name in sorted(docstrings)]
    return "\n".join(["| room | what it holds |", "|---|---|", *rows])


def picture(imports: Graph) -> str:
    """An SVG with a box a room. Arrows point down, to what a room imports; those that a longer way implies are left out."""
    graph = rooms(imports)
    floor = floors(graph)
    paths = [path_of(room, other, floor) for room, others in direct(graph).items() for other in sorted(others)]
    rows = order([(room,) for room in sorted(graph)], paths, floor)
    x = across(rows)
    top = max(floor.values())
    at = {node: (x[node], (top - level) * FLOOR + 2) for level, row in enumerate(rows) for node in row}
    files = {room: sum(room_of(module) == room for module in imports) for room in graph}
    parts = [arrow([at[node] for node in path]) for path in paths]
    parts += [box(room, *at[(room,)], files[room], graph[room]) for room in graph]
    width = max(at[node][0] for node in at) + BOX / 2 + 2
    return (  # in a block, which Markdown leaves as it is
        f'<div><svg class="rooms" viewBox="0 0 {width:.0f} {top * FLOOR + HEIGHT + 4}" role="img" '
        f'aria-label="The rooms of the package and what each imports">{"".join(parts)}</svg></div>'
    )


def floors(graph: Graph) -> dict[str, int]:
    """Room -> its floor: 0 where it imports no other room, else one above the highest that it imports."""
    below = reached(graph)
    floor: dict[str, int] = {}
    for room in sorted(graph, key=lambda room: len(below[room])):  # what is imported comes before
        floor[room] = max((floor[other] + 1 for other in graph[room]), default=0)
    return floor


def direct(graph: Graph) -> dict[str, set[str]]:
    """The arrows that no longer way implies."""
    below = reached(graph)
    return {room: {to for to in others if not any(to in below[by] for by in others)} for room, others in graph.items()}


def path_of(room: str, other: str, floor: Mapping[str, int]) -> list[Node]:
    """An arrow from floor to floor."""
    return [(room,), *((room, other, str(level)) for level in range(floor[room] - 1, floor[other], -1)), (other,)]


def order(boxes: Iterable[Node], paths: list[list[Node]], floor: Mapping[str, int]) -> list[list[Node]]:
    """The nodes of each floor from left to right, such that few arrows cross: each by the mean place of its neighbours."""
    rows: list[list[Node]] = [[] for _ in range(max(floor.values()) + 1)]
    for node in dict.fromkeys([*boxes, *(node for path in paths for node in path)]):
        rows[int(node[2]) if len(node) == 3 else floor[node[0]]].append(node)
    neighbours: dict[Node, list[Node]] = {node: [] for row in rows for node in row}
    for path in paths:
        for one, two in pairwise(path):
            neighbours[one].append(two)
            neighbours[two].append(one)
    for _ in range(24):
        for row in rows:
            place = across(rows)
            row.sort(key=lambda node: sum(place[n] for n in neighbours[node]) / max(1, len(neighbours[node])))
    return rows


def across(rows: list[list[Node]]) -> dict[Node, float]:
    """The middle of each node, every floor around the middle of the widest."""
    widths = [[BOX if len(node) == 1 else THREAD for node in row] for row in rows]
    widest = max(sum(row) + GAP * (len(row) - 1) for row in widths)
    middle: dict[Node, float] = {}
    for row, row_widths in zip(rows, widths, strict=True):
        left = (widest - sum(row_widths) - GAP * (len(row) - 1)) / 2 + 2
        for node, width in zip(row, row_widths, strict=True):
            middle[node] = left + width / 2
            left += width + GAP
    return middle


def arrow(points: list[tuple[float, float]]) -> str:
    x, y = points[0]
    line, y = f"M{x:.0f} {y + HEIGHT:.0f}", y + HEIGHT
    for to, (x2, y2) in enumerate(points[1:], 2):
        bend = (y2 - y) / 2
        line += f"C{x:.0f} {y + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
        x, y = x2, y2
        if to < len(points):
            line, y = f"{line}v{HEIGHT}", y2 + HEIGHT
    return f'<path d="{line}"/><path class="head" d="M{x - 3:.0f} {y - 6:.0f}l3 6l3 -6z"/>'


def box(room: str, x: float, y: float, files: int, others: Iterable[str]) -> str:
    count = f"{files} file{'s' if files > 1 else ''}"
    told = f"{room}: {count}. Imports {', '.join(sorted(others)) or 'no other room'}."
    return (
        f'<g><title>{escape(told)}</title><rect x="{x - BOX / 2:.0f}" y="{y:.0f}" width="{BOX}" height="{HEIGHT}" rx="4"/>'
        f'<text x="{x:.0f}" y="{y + 13:.0f}">{escape(room)}</text>'
        f'<text class="count" x="{x:.0f}" y="{y + 25:.0f}">{count}</text></g>'
    )
