"""Which files make up a sample: what every layout on disk is turned into, and the dataset that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.datasets.boxes import Boxes, Points
from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.images import displayed_size, read_image, read_orientation
from lightning_sal.samples import ImageGroup

if TYPE_CHECKING:
    from torch import Tensor

# (size, orientation) of the photograph -> (N, H, W) bool masks in its frame; size None: in the frame of the file.
Annotation = Callable[[tuple[int, int] | None, int], "Tensor"]


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph and how its masks are read.

    Args:
        path: The photograph; where there is none, the file that should have one.
        annotation: Gives its masks; None where the ground truth is unknown.
        fault: Why this entry cannot be read whatever its files hold (one line), or None.
        stray: Whether `path` belongs to no sample, as a mask without a photograph: to be named, and left out.
        content: Gives the bytes of the file where it lies inside another one, as in a table; `path` is then its name.
    """

    path: Path
    annotation: Annotation | None = None
    fault: str | None = None
    stray: bool = False
    content: Callable[[], bytes] | None = None

    def read(self) -> tuple[Tensor, Tensor | None]:
        """The (H, W, 3) photograph and its (N, H, W) masks."""
        if self.fault:
            raise UnreadableSample(self.fault)
        content = self.content and self.content()
        image = read_image(self.path, content)
        if self.annotation is None:
            return image, None
        return image, self.annotation((image.shape[0], image.shape[1]), read_orientation(self.path, content))

    def size(self) -> tuple[int, int]:
        """(H, W) of the photograph as it is displayed, from the header of its file alone."""
        return displayed_size(self.path, self.content and self.content())

    def problems(self) -> list[str]:
        """One line for each of its files that cannot be read, and each mask that does not fit."""
        try:
            self.read()
        except UnreadableSample as first:
            lines = [str(first)]
        else:
            return []
        if self.annotation is not None and not self.fault:
            try:
                self.annotation(None, 1)
            except UnreadableSample as second:
                lines += [str(second)] if str(second) not in lines else []
        return lines


@dataclass(frozen=True, slots=True)
class Record:
    """The files of one sample.

    Args:
        key: Names the sample; unique within its source.
        task: Name of the task.
        photographs: The K photographs.
        response: The annotated response, or None.
        source: `file:line` where a list names the sample, put before its messages; empty for what a folder holds.
        benchmark: Name of the benchmark that it belongs to, or empty.
        question: As in `ImageGroup`, and so are the rest.
        reference: The answer that is right, or None.
        boxes: Boxes of each photograph as they are listed, or None.
        points: Points of each photograph as they are listed, or None.
    """

    key: str
    task: str
    photographs: tuple[Photograph, ...]
    response: str | None = None
    source: str = ""
    benchmark: str = ""
    question: str = ""
    reference: str | None = None
    boxes: tuple[Boxes, ...] | None = None
    points: tuple[Points, ...] | None = None

    def read(self) -> ImageGroup:
        """The image group.

        Raises:
            UnreadableSample: A file cannot be read or does not fit.
        """
        try:
            images, masks = zip(*(photograph.read() for photograph in self.photographs), strict=True)
            sizes = [(image.shape[0], image.shape[1]) for image in images]
            boxes, points = _in_pixels(self.boxes, sizes), _in_pixels(self.points, sizes)
        except UnreadableSample as error:
            raise UnreadableSample(self._located(str(error))) from error
        known = tuple(mask for mask in masks if mask is not None)
        return ImageGroup(
            key=self.key,
            task=self.task,
            images=images,
            masks=known if len(known) == len(masks) else None,
            response=self.response,
            paths=tuple(str(photograph.path) for photograph in self.photographs if photograph.content is None),
            benchmark=self.benchmark,
            question=self.question,
            reference=self.reference,
            boxes=boxes,
            points=points,
        )

    def select(self, indices: Sequence[int]) -> Record:
        """The sample with some of its photographs, and what is known of each."""

        def chosen(parts: tuple[Any, ...] | None) -> Any:
            return parts and tuple(parts[index] for index in indices)

        return replace(self, photographs=chosen(self.photographs), boxes=chosen(self.boxes), points=chosen(self.points))

    def problems(self) -> list[str]:
        """One line for everything in this sample that cannot be read."""
        lines = []
        for number, photograph in enumerate(self.photographs):
            faults = photograph.problems()
            image = None if faults else photograph.read()[0]
            size = None if image is None else (image.shape[0], image.shape[1])
            for places in (self.boxes, self.points):
                faults += places[number].faults(size) if places is not None else []
            lines += map(self._located, faults)
        return lines

    def _located(self, line: str) -> str:
        return f"{self.source}: {line}" if self.source else line


def _in_pixels(places: Sequence[Boxes | Points] | None, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...] | None:
    """The boxes or points of each photograph in pixels of (H, W)."""
    return None if places is None else tuple(each.read(size) for each, size in zip(places, sizes, strict=True))


class ImageGroups:
    """The image groups of some records, read when asked for.

    Args:
        records: What to read, in this order.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> ImageGroup:
        return self.records[index].read()
