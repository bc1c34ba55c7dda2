"""Single images in a report: the best and the worst of each method, and those on which the two best differ most."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from lightning_sal.evaluation.entries import Entry, comparable
from lightning_sal.evaluation.results import NAMES, read_masks
from lightning_sal.evaluation.tables import conventions_apart
from lightning_sal.pages.charts import swatch
from lightning_sal.pages.thumbnails import kept_mask, thumbnail
from lightning_sal.tasks import Measure

EXTREMES = 6  # best and worst images that are shown of a method
SIDE = 240  # pixels of the longer side of a thumbnail
STYLE = """
.shots { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)) }
.shots .card { padding: .6rem; border-radius: .5rem }
.shots .pictures { grid-template-columns: repeat(auto-fit, minmax(min(45%, 8rem), 1fr)) }
.shots .pictures img { width: 100% }
.shots .pictures small { display: block; overflow-wrap: anywhere; line-height: 1.2; padding-top: .2rem; opacity: .75 }
.shots figcaption { margin-top: .4rem; font-size: .85rem; overflow-wrap: anywhere }
"""


@dataclass(slots=True)
class Shots:
    """Figures of images of a benchmark: photograph, ground truth and predictions, where the rows name files of them.

    Args:
        entries: The methods.
        metric: By which images are ranked.
        measure: What that is.
        numbers: The columns that are no words of an answer, and are not shown as such; None where no words are wanted.
    """

    entries: Sequence[Entry]
    metric: str
    measure: Measure
    numbers: Collection[str] | None = None
    lacking: set[str] = field(default_factory=set)  # files that are named and cannot be read
    _read: dict[str, str | None] = field(default_factory=dict)
    _masks: dict[int, list[dict[str, str]]] = field(default_factory=dict)

    def html(self) -> str:
        """Where the two best by their means differ, and the best and the worst of each."""
        sign = -1 if self.measure.lower_is_better else 1
        means = [(sign * float(np.mean([*v.values()])), e) for e in self.entries if (v := e.values(self.metric))]
        two = [entry for _, entry in sorted(means, key=lambda each: -each[0])[:2]]
        heading = f"<h4>Where the two best, {' and '.join(escape(each.name) for each in two)}, differ most</h4>"
        differing = heading + self.differing(*two) if len(two) == 2 else ""
        return self.with_lacking(f"{differing}{self._extremes()}")

    def with_lacking(self, shown: str) -> str:
        """What is shown, below a line on the pictures that are not."""
        if not self.lacking:
            return shown
        number = len(self.lacking)
        files = f"{number} file{'s' * (number > 1)}"
        return f'<p class="note">Not shown: {files} that cannot be read from where this page was made.</p>{shown}'

    def differing(self, first: Entry, second: Entry) -> str:
        """Where one of two methods is better than the other by most."""
        sign = -1 if self.measure.lower_is_better else 1
        ours, theirs = first.values(self.metric), second.values(self.metric)
        (known, _), _ = comparable([first, second])
        gains = {image: sign * (ours[image] - theirs[image]) for image in ours if image in theirs and image in known}
        shown = []
        for better, way in ((first, 1), (second, -1)):
            largest = sorted(
                (image for image in gains if way * gains[image] > 0), key=lambda image: -way * gains[image]
            )
            if largest:
                shown.append(f"<p>{escape(better.name)} is better by most:</p>")
                shown.append(self._row(largest[:EXTREMES], [first, second]))
        return "".join(shown) or "<p>On no image.</p>"

    def _extremes(self) -> str:
        """The worst and the best images of each method; none is both."""
        parts = []
        for entry in self.entries:
            values = entry.values(self.metric)
            ranked = sorted(values, key=lambda image: values[image], reverse=self.measure.lower_is_better)
            worst = ranked[: min(EXTREMES, math.ceil(len(ranked) / 2))]
            best = ranked[len(worst) :][::-1][:EXTREMES]
            for which, images in (("worst", worst), ("best", best)):
                if images:
                    parts.append(f"<h4>{escape(entry.name)}: {which} by {escape(self.measure.heading)}</h4>")
                    parts.append(self._row(images, [entry]))
        return "".join(parts)

    def _row(self, images: Sequence[tuple[str, int]], shown: Sequence[Entry]) -> str:
        return f'<div class="shots">{"".join(self._figure(image, shown) for image in images)}</div>'

    def _figure(self, image: tuple[str, int], shown: Sequence[Entry]) -> str:
        """What the methods `shown` predict on an image, and below it the values of all."""
        row, (name, number) = shown[0].images[image], image
        if (name, 2) in shown[0].images:  # several questions about it, or photographs of one name
            name = f"{name}, {row.get('key') or number}"
        pictures = [
            ("photograph", self._picture(shown[:1], image, "image")),
            ("ground truth", self._picture(shown, image, "truth")),
            *((each.name, self._picture([each], image, "prediction")) for each in shown),
        ]
        tags = "".join(
            f'<div><img src="{uri}" alt="{escape(f"{name}: {what}")}"><small>{escape(what)}</small></div>'
            for what, uri in pictures
            if uri
        )
        missing = ", ".join(what for what, uri in pictures if not uri)
        without = f"<br>no picture of {escape(missing)}" if missing else ""
        values = "".join(
            f"<br>{swatch(each.number)} {escape(each.name)} {float(own[self.metric]):.3f}{self._words(own)}"
            for each in self.entries
            if (own := each.images.get(image, {})).get(self.metric)
        )
        return (
            f'<figure class="card"><div class="pictures">{tags}</div>'
            f"<figcaption>{escape(name)}<br>{escape(self.measure.heading)}{values}{without}</figcaption></figure>"
        )

    def _words(self, row: Mapping[str, str]) -> str:
        """What a method answered, and what was wrong with that, as its row has it."""
        if self.numbers is None:
            return ""
        words = (f", {name}: {text}" for name, text in row.items() if text and name not in {*NAMES, *self.numbers})
        return escape("".join(words))

    def _picture(self, shown: Sequence[Entry], image: tuple[str, int], column: str) -> str | None:
        """The first of these: a file that a row names, in small, or the mask that results keep of it."""
        for entry in shown:
            path = entry.images[image].get(column)
            uri = self._of_file(path, column) if path else self._kept(entry, image, column)
            if uri:
                return uri
        return None

    def _of_file(self, path: str, column: str) -> str | None:
        if path not in self._read:
            self._read[path] = thumbnail(Path(path), SIDE, as_map=column != "image")
        if self._read[path] is None:
            self.lacking.add(path)
        return self._read[path]

    def _kept(self, entry: Entry, image: tuple[str, int], column: str) -> str | None:
        if entry.number not in self._masks:
            self._masks[entry.number] = read_masks(entry.folder, entry.benchmark)
        rows = self._masks[entry.number]
        if rows and len(rows) != len(entry.images):
            raise ValueError(
                f"{entry.folder}: {entry.benchmark} has {len(entry.images)} rows, and masks of {len(rows)}"
            )
        text = dict(zip(entry.images, rows, strict=False)).get(image, {}).get(column)
        return kept_mask(text) if text else None


def unlike(entries: Sequence[Entry]) -> str:
    """A warning where methods are measured by different conventions, by whichever of their fields differ."""
    differing = conventions_apart({entry.name: entry.settings.get("convention") for entry in entries})
    if not differing:
        return ""
    told = "; ".join(
        f"{name} {', '.join(f'{value} ({method})' for method, value in each.items())}"
        for name, each in differing.items()
    )
    return f"<p><strong>Not measured alike, so that values cannot be compared:</strong> {escape(told)}.</p>"
