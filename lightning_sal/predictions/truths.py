"""What predictions are scored against: a benchmark as distributed, or its masks alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.files import composed, image_files, stem, subfolders
from lightning_sal.datasets.pixels import read_frame
from lightning_sal.datasets.records import Photograph
from lightning_sal.datasets.sis import ColouredFile
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.datasets.sources import layout_of, task_records
from lightning_sal.tasks import Task


@dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth of an image.

    Args:
        image: The photograph with its masks; where there is none, its mask in its place.
        alone: Whether there is no photograph.
    """

    image: Photograph
    alone: bool = False

    @property
    def photograph(self) -> Path | None:
        """The photograph, where it is a file."""
        return None if self.alone or self.image.content else self.image.path

    def levels(self) -> tuple[np.ndarray, int]:
        """The mask in the frame of the photograph, of several their union.

        Returns:
            (H, W) uint8, uint16 or float64, as they stand in the file; and what means 1.

        Raises:
            UnreadableSample: A file cannot be read, or the mask does not fit the photograph.
        """
        annotation, content = self.image.annotation, self.image.content
        size, orientation = (None, 1) if self.alone else read_frame(self.image.path, content and content())
        if isinstance(annotation, MaskFile):
            return annotation.levels(size, orientation)
        assert annotation is not None  # by `find_truths`
        return annotation(size, orientation).any(0).numpy().view(np.uint8), 1


def find_truths(place: Path, task: Task) -> dict[str, Truth]:
    """Name of each image of a benchmark -> its ground truth.

    Args:
        place: The benchmark, as distributed, of which the test split is taken where it holds several; or a folder of its
            masks alone, one folder a group where the task has groups.
        task: Its task.

    Raises:
        FileNotFoundError: There is no such path.
        UnreadableSample: An image has no mask, or several; all that is wrong so is told before anything is measured.
        ValueError: The place holds nothing of the task, or two images or masks of one name.
    """
    masks = _masks_alone(place, task)
    annotate = ColouredFile if task.masks_per_image is None else MaskFile
    images = [Photograph(mask, annotate(mask)) for mask in masks]
    if not masks:
        images = [image for record in task_records(task, place, "test") for image in record.photographs]
    found: dict[str, Truth] = {}
    for image in images:
        name = image_name(image.path, task)
        if name in found:
            raise ValueError(f"{place}: {image.path} and {found[name].image.path} share the name {name!r}: keep one")
        found[name] = Truth(image, alone=bool(masks))
    faults = [image.fault for image in images if image.fault]
    if faults:
        raise UnreadableSample(faults[0] + (f"; and {len(faults) - 1} more: see check-data" if faults[1:] else ""))
    if unknown := [image.path for image in images if image.annotation is None]:
        raise ValueError(f"{unknown[0]}: there is no mask to score against; give its masks")
    return found


def image_name(path: Path, task: Task) -> str:
    """The name that predictions of an image have: its stem, after the folder of its group where the task has several."""
    return f"{composed(path.parent.name)}/{stem(path)}" if task.several else stem(path)


def _masks_alone(place: Path, task: Task) -> list[Path]:
    """The masks of a folder in which no layout finds photographs."""
    folders = subfolders(place) if task.several else [place]
    files = [file for folder in folders for file in image_files(folder)]
    if not files or not task.layout:
        return files
    found = layout_of(task).candidates(place)
    if found and not (all(each.where == "." and not each.folders for each in found) and _mostly_single(files)):
        return []
    return files


def _mostly_single(files: list[Path]) -> bool:
    """Whether few files have another of their stem: then these are two masks of one image, and no photographs of masks."""
    times = Counter(stem(file) for file in files)
    return 2 * sum(count > 1 for count in times.values()) < len(times)
