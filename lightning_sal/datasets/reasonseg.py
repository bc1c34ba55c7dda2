"""ReasonSeg as LISA distributes it (arXiv 2308.00692): a JSON of sentences and polygons beside each photograph.

    val/mug.jpg
    val/mug.json: {"text": ["the thing to drink from", ...], "is_sentence": true,
                   "shapes": [{"label": "target", "points": [[12, 40], [96, 40], [96, 131]]}, {"label": "ignore", ...}]}

Each sentence is a sample. Its mask is read as LISA's own evaluation reads it: shapes labelled `flag` are passed over; the
others are drawn from the largest to the smallest, each over those before it, its outline included, as `ignore` where the
label holds that word and as target otherwise. So a target inside a region to be ignored counts, and a region to be ignored
inside a target does not.

LISA leaves the pixels to be ignored out of its sums. A sample here has no such pixels: they count as background, and a line
of the log says in how many photographs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.files import image_files, stem, visible
from lightning_sal.datasets.layouts import Candidate
from lightning_sal.datasets.records import Photograph, Record
from lightning_sal.datasets.segmentations import FARTHEST, fill
from lightning_sal.files.reading import parse_object

log = logging.getLogger(__name__)

PEEKED = 2**20  # bytes of a file by which its form is told: the polygons may stand before the sentences
TRIED = 5  # files of a folder by which it is told
LEGACY = "cp1252"  # of some files of the release, where they are not UTF-8
IGNORED, PASSED_OVER = "ignore", "flag"  # labels
MOST_SHAPES = 1000  # of a photograph
MOST_STEPS = 2**24  # pixels of the outlines of a shape

Ring = np.ndarray  # (V, 2) whole x, y in pixels


@dataclass(frozen=True, slots=True)
class Shapes:
    """The annotation of a photograph, as a file gives it.

    Args:
        name: Of the file, for messages.
        rings: The outlines.
        targets: Whether each is of the target, and not to be ignored.
    """

    name: str
    rings: tuple[Ring, ...]
    targets: tuple[bool, ...]

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        """(1, H, W) bool: the target; arguments as for `Annotation`.

        Raises:
            UnreadableSample: There are shapes of the target, and none of them covers a pixel.
        """
        if size is None:
            return torch.zeros(1, 0, 0, dtype=torch.bool)
        drawn = [draw(ring, size) for ring in self.rings]
        largest_first = sorted(range(len(drawn)), key=lambda number: drawn[number].sum())[::-1]
        mask = np.zeros(size, dtype=bool)
        for number in largest_first:
            mask[drawn[number]] = self.targets[number]
        if any(self.targets) and not any(drawn[number].any() for number, target in enumerate(self.targets) if target):
            raise UnreadableSample(f"{self.name}: the target covers no pixel of the {size[1]} x {size[0]}")
        return torch.from_numpy(mask)[None]


def draw(ring: Ring, size: tuple[int, int]) -> np.ndarray:
    """A polygon with its outline, as (h, w) bool.

    Args:
        ring: (V, 2) whole x, y: centres of pixels, unlike those of COCO.
        size: (h, w).
    """
    mask = np.zeros(size, dtype=bool)
    if len(ring) > 2:
        fill(ring + 0.5, mask)
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        x, y = line(start, end).T
        inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
        mask[y[inside], x[inside]] = True
    return mask


def line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The pixels of a line from the left to the right by Bresenham's rule, a tie staying where it is, as (P, 2) x, y."""
    if end[0] < start[0]:
        start, end = end, start
    far = np.abs(end - start)
    longest = max(int(far.max()), 1)
    step = np.arange(far.max() + 1)[:, None]
    return start + np.sign(end - start) * ((2 * step * far + longest - 1) // (2 * longest))


def reasonseg_records(folder: Path) -> list[Record]:
    """The sentences of a folder's photographs; a file that is malformed becomes a sample that cannot be read."""
    lists = {stem(path): path for path in sorted(folder.glob("*.json")) if visible(path.name)}
    photographs: dict[str, list[Path]] = {}
    for path in image_files(folder):
        photographs.setdefault(stem(path), []).append(path)
    records, ignored = [], 0
    for name in sorted(lists.keys() | photographs.keys()):
        files = photographs.get(name, [])
        if name not in lists:
            fault = f"{files[0]}: no {name}.json beside it"
            records.append(Record(name, "perception", (Photograph(files[0], fault=fault, stray=True),)))
            continue
        try:
            if len(files) != 1:
                found = ", ".join(file.name for file in files) or "none"
                raise ValueError(
                    f"{lists[name]}: one photograph of its name must stand beside it, and there is {found}"
                )
            sentences, shapes = _read(lists[name])
        except ValueError as error:
            records.append(Record(name, "perception", (Photograph(lists[name], fault=str(error)),)))
            continue
        ignored += not all(shapes.targets)
        for number, sentence in enumerate(sentences, 1):
            key = name if len(sentences) == 1 else f"{name}.{number}"
            records.append(Record(key, "perception", (Photograph(files[0], shapes),), question=sentence))
    if ignored:
        log.warning(f"{folder}: {ignored} photographs have regions to be ignored, which count as background here")
    return records


def match(place: Path) -> list[Candidate]:
    """The dataset that lies so right in a folder."""
    if not place.is_dir():
        return []
    files = islice((path for path in sorted(place.glob("*.json")) if visible(path.name)), TRIED)
    return [Candidate(".", partial(reasonseg_records, place))] if any(map(_is_one, files)) else []


def _is_one(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(PEEKED)
    return b'"shapes"' in head and b'"is_sentence"' in head


def _read(path: Path) -> tuple[list[str], Shapes]:
    """The sentences and the shapes of a file.

    Raises:
        ValueError: It is not as the head of this file says.
    """
    try:
        content = parse_object(_text(path))
        texts = content.get("text")
        texts = [texts] if isinstance(texts, str) else texts
        if (
            not isinstance(texts, list)
            or not texts
            or not all(isinstance(each, str) and each.strip() for each in texts)
        ):
            raise ValueError("`text` is no list of sentences")
        if not isinstance(content.get("is_sentence", True), bool):
            raise ValueError(f"`is_sentence` is {shortened(content['is_sentence'])}, where true or false must stand")
        pairs = list(_shapes(content.get("shapes")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rings, targets = tuple(ring for ring, _ in pairs), tuple(target for _, target in pairs)
    return [text.strip() for text in texts], Shapes(str(path), rings, targets)


def _text(path: Path) -> str:
    if not path.is_file():  # a pipe or a device would be waited for
        raise ValueError("not a file")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(LEGACY, errors="replace")


def _shapes(shapes: Any) -> Iterator[tuple[Ring, bool]]:
    """Outline, and whether it is of the target, of each shape that counts."""
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise ValueError("`shapes` is no list of objects")
    if len(shapes) > MOST_SHAPES:
        raise ValueError(f"{len(shapes)} shapes, more than {MOST_SHAPES}")
    for number, shape in enumerate(shapes, 1):
        label, points = shape.get("label"), shape.get("points")
        if not isinstance(label, str):
            raise ValueError(f"shape {number}: its `label` is {shortened(label)}")
        if label.lower() == PASSED_OVER:
            continue
        if not isinstance(points, list) or not points or not all(map(_is_point, points)):
            raise ValueError(f"shape {number}: its `points` are no pairs of numbers up to {FARTHEST:g}")
        ring = np.trunc(np.array(points, dtype=np.float64)).astype(np.int64)
        if np.abs(np.diff(ring, axis=0, append=ring[:1])).max(1).sum() > MOST_STEPS:
            raise ValueError(f"shape {number}: an outline of more than {MOST_STEPS} pixels")
        yield ring, IGNORED not in label.lower()


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
        and all(abs(each) <= FARTHEST for each in value)
    )


LOOKED_FOR = "photographs each beside a JSON of its name with `text`, `is_sentence` and `shapes` (ReasonSeg)"
