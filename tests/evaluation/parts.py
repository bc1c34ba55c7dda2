"""Folders of results by hand, and pages read as a browser reads them."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

from lightning_sal.evaluation.results import Results, measures_of, write_summary

VOID = ("img", "meta", "br", "circle", "line", "path", "polyline")


class Page(HTMLParser):
    """Tags and texts; every tag but those of a void element is closed in its order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(path.read_text())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def results(
    folder: Path,
    name: str,
    rows: dict,
    metrics: dict | None = None,
    tasks: dict | None = None,
    curves=None,
    settings=None,
    usage=None,
) -> Path:
    """A folder by hand: `rows` are {benchmark: [row]}, metrics by default the means of the values."""
    folder.mkdir()
    tasks = tasks or dict.fromkeys(rows, "sod")
    means = {}
    for benchmark, each in rows.items():
        with (folder / f"{benchmark}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(each[0]))
            writer.writeheader()
            writer.writerows(each)
        names = [key for key, value in each[0].items() if isinstance(value, float)]
        means[benchmark] = {key: sum(row[key] for row in each) / len(each) for key in names}
    write_summary(Results(name, tasks, metrics or means, measures_of(tasks), settings or {}, usage or {}), folder)
    if curves:
        (folder / "curves.json").write_text(json.dumps(curves))
    return folder


def row(number, value, **more):
    image = {"key": str(number), "image": f"Imgs/{number}.jpg", "s_measure": value, "mae": (1 - value) / 4}
    return {"sample": number, "benchmark": "ECSSD", **image, **more}
