"""Questions "all <category>" of a COCO json, drawn by a seed, and questions whose answer is that there is none.

The questions of Dr. Seg's COCONut split are of this kind: a category that occurs at least twice on an image, with the union
of its instances as the truth. Every choice hangs on a hash of the seed, the name of the file and the category alone: neither
the order of the json nor its ids have a part in it, and a smaller number of questions is a part of a larger.

Legend: I instances, H x W pixels of the displayed photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sal.datasets.coco import (
    Entry,
    Named,
    by_image,
    category_of,
    find_photographs,
    read_annotations,
    read_categories,
    read_images,
    stated_frame,
)
from lightning_sal.datasets.coco_files import photograph_folders
from lightning_sal.datasets.detection import ALL
from lightning_sal.datasets.images import UnreadableSample, displayed_size, read_orientation
from lightning_sal.datasets.panoptic import Segments, segments_of
from lightning_sal.datasets.records import Annotation
from lightning_sal.datasets.segmentations import Segmentations
from lightning_sal.datasets.spelling import file_of
from lightning_sal.files.reading import read_json


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a photograph, and what is right.

    Args:
        image: The photograph.
        category: What is looked for.
        instances: Gives the I >= 0 masks of its instances.
        source: Names the image in its list.
        fault: Why the truth cannot be used, or None.
    """

    image: Path
    category: str
    instances: Annotation
    source: str
    fault: str | None = None

    @property
    def text(self) -> str:
        """What follows "find"."""
        return f"{ALL}{self.category}"

    def read(self) -> Tensor:
        """The masks, (I, H, W) bool.

        Raises:
            UnreadableSample: The photograph or an instance cannot be read.
        """
        if self.fault:
            raise UnreadableSample(self.fault)
        return self.instances(displayed_size(self.image), read_orientation(self.image))


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of a json, as far as questions go.

    Args:
        key: Its id.
        entry: What the json says of it.
        instances: Category -> its instances, none of them a crowd.
        crowds: Categories of which there is a crowd.
    """

    key: Any
    entry: Entry
    instances: dict[str, list[Named]] = field(default_factory=dict)
    crowds: set[str] = field(default_factory=set)

    def asked(self, least: int, categories: Mapping[Any, str]) -> list[str]:
        """The categories whose instances, at least so many, are all annotated."""
        partly = {*self.crowds, *self._named("not_exhaustive_category_ids", categories)}
        return [name for name, group in self.instances.items() if len(group) >= least and name not in partly]

    def absent(self, categories: Mapping[Any, str]) -> list[str]:
        """The categories of which there is nothing on it."""
        stated = "neg_category_ids" in self.entry
        names = self._named("neg_category_ids", categories) if stated else categories.values()
        return [name for name in names if name not in self.instances and name not in self.crowds]

    def _named(self, field: str, categories: Mapping[Any, str]) -> list[str]:
        ids = self.entry.get(field, [])
        if not isinstance(ids, list) or not all(isinstance(each, int | float | str) for each in ids):
            raise ValueError(
                f"image {shortened(self.key)}: `{field}` is {shortened(ids)}, where a list of ids must stand"
            )
        return [categories[each] for each in ids if each in categories]


@dataclass
class QuestionSource:
    """A COCO json, instances or panoptic, from which questions are drawn.

    Where images state `neg_category_ids`, as those of LVIS, only these count as absent, and their
    `not_exhaustive_category_ids` are not asked.

    Args:
        path: The json.
        images: Where the photographs lie; None for where they are found for salient instances, too.
        segments: Where the PNGs of a panoptic json lie; None for the folder of its name beside it, or else its own folder.

    Raises:
        FileNotFoundError: There is no such json.
        ValueError: It is malformed; the message names the place.
    """

    path: Path
    images: Path | None = None
    segments: Path | None = None

    def __post_init__(self) -> None:
        content = read_json(self.path)
        entries, named = read_images(self.path, content), read_annotations(self.path, content)
        self.panoptic = any("segments_info" in annotation for _, annotation in named)
        annotations, self.faults = by_image(entries, segments_of(named) if self.panoptic else named)
        if strays := [fault for key, fault in self.faults.items() if key not in entries]:
            raise ValueError(strays[0])
        self.categories = read_categories(self.path, content)
        self.listed = [self._listed(key, entry, annotations[key]) for key, entry in entries.items()]
        self.crowds = sum(bool(each.get("iscrowd")) for group in annotations.values() for _, each in group)
        self.files = find_photographs(entries, [self.images] if self.images else photograph_folders(self.path))

    def draw(self, seed: int = 0, limit: int | None = None, least: int = 2, no_target: float = 0.0) -> list[Question]:
        """Some questions, in the order of their hashes.

        A category of which a crowd is annotated on an image is not asked there, since the truth would lack it.

        Args:
            seed: Another seed, another draw.
            limit: How many in all, if there are so many; None for every one that has an answer.
            least: How many instances a category must have on an image.
            no_target: Share of the questions whose category is absent from their image, in [0, 1).

        Raises:
            ValueError: A number is none that can be.
        """
        if least < 1 or not 0 <= no_target < 1 or (limit is not None and limit < 1):
            raise ValueError(
                f"least {least}, limit {limit}, no target {no_target}: give whole numbers from 1 on, and a share below 1"
            )

        def rank(image: Listed, category: str) -> str:
            text = "\0".join((str(seed), image.entry["file_name"], category))
            return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

        present = [(image, name) for image in self.listed for name in image.asked(least, self.categories)]
        present.sort(key=lambda pair: rank(*pair))
        without = 0 if limit is None else round(no_target * limit)
        present = present[: None if limit is None else limit - without]
        if limit is None or len(present) < limit - without:
            without = round(len(present) * no_target / (1 - no_target))
        chosen = [*present, *islice(self._absent(rank), without)]
        return [self._question(*pair) for pair in sorted(chosen, key=lambda pair: rank(*pair))]

    def _absent(self, rank: Callable[[Listed, str], str]) -> Iterator[tuple[Listed, str]]:
        """Images with a category that is absent from them: one of each, then another, in the order of hashes."""
        order = sorted(self.listed, key=lambda image: rank(image, ""))
        for turn in range(len(self.categories)):
            for image in order:
                names = sorted(image.absent(self.categories), key=partial(rank, image))
                yield from ((image, name) for name in names[turn : turn + 1])

    def _listed(self, key: Any, entry: Entry, named: Sequence[Named]) -> Listed:
        image = Listed(key, entry)
        for name, annotation in named:
            category = category_of(name, annotation, self.categories)
            if annotation.get("iscrowd"):
                image.crowds.add(category)
            else:
                image.instances.setdefault(category, []).append((name, annotation))
        return image

    def _question(self, image: Listed, category: str) -> Question:
        source, group = f"{self.path}: image {shortened(image.key)}", image.instances.get(category, [])
        if self.panoptic and group:
            beside = self.path.with_suffix("")
            place = self.segments or (beside if beside.is_dir() else self.path.parent)
            truth = Segments(file_of(place, group[0][1]["file_name"]), [(name, each["id"]) for name, each in group])
        else:
            drawings = [(name, each.get("segmentation")) for name, each in group]
            truth = Segmentations(drawings, stated_frame(self.path, image.entry), source, image.key)
        fault = self.faults.get(image.key)
        return Question(self.files[image.key], category, truth, f"{source}, {category}", fault)


def box_of(mask: Tensor) -> list[float]:
    """The box around a mask.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        x0, y0, x1, y1 in pixels: the left and upper edge of its first column and row, the right and lower of its last.
    """
    rows, columns = (torch.nonzero(mask.any(axis))[:, 0] for axis in (1, 0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def inner_point(mask: Tensor) -> list[float]:
    """The centre of the pixel that lies farthest inside a mask, by Euclidean distance from what is not in it.

    What lies beyond the image is not in it. Of several such pixels it is the first in the order of rows.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        x, y in pixels.
    """
    from scipy.ndimage import distance_transform_edt

    distance = np.asarray(distance_transform_edt(np.pad(mask.numpy(), 1)))[1:-1, 1:-1]
    row, column = np.unravel_index(distance.argmax(), distance.shape)
    return [float(column) + 0.5, float(row) + 0.5]
