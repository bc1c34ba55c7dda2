"""Single images in a report: the best and the worst of each method, and those on which the two best differ most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from lightning_sal.evaluation.entries import Entry, comparable
from lightning_sal.pages.charts import swatch
from lightning_sal.pages.thumbnails import thumbnail
from lightning_sal.tasks import Measure

EXTREMES = 6  # best and worst images that are shown of a method
SIDE = 240  # pixels of the longer side of a thumbnail
STYLE = """
.shots { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)) }
.shots .card { padding: .6rem; border-radius: .5rem }
.shots .pictures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 8rem), 1fr)) }
.shots figcaption { margin-top: .4rem; font-size: .85rem; overflow-wrap: anywhere }
"""


@dataclass(slots=True)
class Shots:
    """Figures of images of a benchmark: photograph, ground truth and predictions, where the rows name files of them.

    Args:
        entries: The methods.
        metric: By which images are ranked.
        measure: What that is.
    """

    entries: Sequence[Entry]
    metric: str
    measure: Measure
    lacking: set[str] = field(default_factory=set)  # files that are named and cannot be read
    _read: dict[str, str | None] = field(default_factory=dict)

    def html(self) -> str:
        """All of them."""
        shown = f"{self._differing()}{self._extremes()}"
        if not self.lacking:
            return shown
        number = len(self.lacking)
        files = f"{number} file{'s' * (number > 1)}"
        return f'<p class="note">Not shown: {files} that cannot be read from where this page was made.</p>{shown}'

    def _differing(self) -> str:
        """Where one of the two best methods, by their means, is better than the other by most."""
        sign = -1 if self.measure.lower_is_better else 1
        means = [(sign * float(np.mean([*v.values()])), e) for e in self.entries if (v := e.values(self.metric))]
        if len(means) < 2:
            return ""
        first, second = (entry for _, entry in sorted(means, key=lambda each: -each[0])[:2])
        ours, theirs = first.values(self.metric), second.values(self.metric)
        (known, _), _ = comparable([first, second])
        gains = {image: sign * (ours[image] - theirs[image]) for image in ours if image in theirs and image in known}
        parts = [f"<h4>Where the two best, {escape(first.name)} and {escape(second.name)}, differ most</h4>"]
        for better, way in ((first, 1), (second, -1)):
            largest = sorted(
                (image for image in gains if way * gains[image] > 0), key=lambda image: -way * gains[image]
            )
            if largest:
                parts.append(f"<p>{escape(better.name)} is better by most:</p>")
                parts.append(self._row(largest[:EXTREMES], [first, second]))
        if len(parts) == 1:
            parts.append("<p>On no image.</p>")
        return "".join(parts)

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
        tags = [
            self._picture(row, "image", f"{name}: photograph"),
            self._picture(row, "truth", f"{name}: ground truth"),
        ]
        tags += [self._picture(each.images[image], "prediction", f"{name}: {each.name}") for each in shown]
        values = "".join(
            f"<br>{swatch(each.number)} {escape(each.name)} {float(own[self.metric]):.3f}"
            for each in self.entries
            if (own := each.images.get(image, {})).get(self.metric)
        )
        return (
            f'<figure class="card"><div class="pictures">{"".join(tags)}</div>'
            f"<figcaption>{escape(name)}<br>{escape(self.measure.heading)}{values}</figcaption></figure>"
        )

    def _picture(self, row: Mapping[str, str], column: str, alt: str) -> str:
        """The thumbnail of a file that a row names; empty where it names none, or the file cannot be read."""
        path = row.get(column)
        if not path:
            return ""
        if path not in self._read:
            self._read[path] = thumbnail(Path(path), SIDE, as_map=column != "image")
        uri = self._read[path]
        if uri is None:
            self.lacking.add(path)
        return f'<img src="{uri}" alt="{escape(alt)}">' if uri else ""
