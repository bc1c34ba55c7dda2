"""Ground truths and predictions brought together by their names, both as files; nothing of torch for saliency maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.layouts import listed
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.predictions.affixes import common_affix
from lightning_sal.predictions.map_files import Levels, MapFile, MasksOfImage
from lightning_sal.predictions.readers import Reader, prediction_readers
from lightning_sal.predictions.truths import Truth, find_truths
from lightning_sal.tasks import Task


@dataclass(frozen=True, slots=True)
class Pairing:
    """The images of a benchmark that have a prediction.

    Args:
        truths: Name of an image -> its ground truth.
        readers: Name of an image -> how its prediction is read; of the same names.
        missing: Images that have none.
        extra: Predictions of other names.
        notes: What is to be known of how they were brought together, a line each.
    """

    truths: dict[str, Truth]
    readers: dict[str, Reader]
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MapPair:
    """A ground truth and a saliency map, which are read when asked for.

    Args:
        name: Of the image; after that of its group, where it is in one.
        group: The folder of its group, or empty.
        truth: The ground truth.
        prediction: How the map is read.
        resize: `bilinear`, or `refuse`: what becomes of a map of another size.
    """

    name: str
    group: str
    truth: Truth
    prediction: Reader
    resize: str = "bilinear"

    @property
    def photograph(self) -> Path | None:
        """The photograph, where there is one that is a file."""
        return self.truth.photograph

    @property
    def files(self) -> dict[str, str]:
        """`truth` and `prediction` -> its file; empty where it is not one file."""
        sides = {"truth": self.truth.image.annotation, "prediction": self.prediction}
        return {name: str(side.path) if isinstance(side, MaskFile | MapFile) else "" for name, side in sides.items()}

    def truth_levels(self) -> tuple[np.ndarray, int]:
        """The ground truth: see `Truth.levels`."""
        return self.truth.levels()

    def map_levels(self, size: tuple[int, int]) -> tuple[np.ndarray, float, bool]:
        """The map.

        Args:
            size: (H, W) of the ground truth.

        Returns:
            (H, W) uint8, uint16 or float64, as they stand in the file, or float64 where it was resized; what means 1;
            whether it had another size.

        Raises:
            UnreadableSample: The file cannot be read, a value lies outside its range, or it is refused for its size.
        """
        values, top, stored = _levels(self.prediction, size)
        if stored != size and self.resize == "refuse":
            raise UnreadableSample(
                f"the map of {self.name} has {stored[1]} x {stored[0]} pixels, and its ground truth {size[1]} x {size[0]}: "
                "maps of another size are refused by --resize refuse"
            )
        return values, top, stored != size


@dataclass(frozen=True, slots=True)
class MapPairs:
    """All pairs of a benchmark; the rest as for `Pairing`."""

    pairs: list[MapPair]
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def pair_maps(
    preds: Path, truth: Path, task: Task, benchmark: str, *, skip_missing: bool = False, resize: str = "bilinear"
) -> MapPairs:
    """Every image of a benchmark with its saliency map.

    Args:
        preds: What `prediction_readers` takes.
        truth: What `find_truths` takes.
        task: Of regions, one mask an image.
        benchmark: Its name.
        skip_missing: Whether images without map, and maps without image, are left out instead of refused.
        resize: `bilinear`, or `refuse`: what becomes of maps of another size than their ground truth.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: What does not fit, by name; see `pair_up`.
    """
    found = pair_up(preds, truth, task, benchmark, skip_missing=skip_missing)
    pairs = [
        MapPair(name, name.rpartition("/")[0] if task.several else "", each, found.readers[name], resize)
        for name, each in found.truths.items()
    ]
    return MapPairs(pairs, found.missing, found.extra, found.notes)


def pair_up(preds: Path, truth: Path, task: Task, benchmark: str, *, skip_missing: bool = False) -> Pairing:
    """Every image of a benchmark with its prediction.

    Names are the stems of files. Where all predictions, or all images, have one text more than the others at the end or at
    the beginning, it is taken off, and a note says so.

    Args:
        preds: What `prediction_readers` takes.
        truth: What `find_truths` takes.
        task: Its task.
        benchmark: Its name.
        skip_missing: Whether images without prediction, and predictions without image, are left out instead of refused.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: Images without prediction or predictions without image, which are named; two predictions or two
            ground truths of one; no image that has one.
    """
    truths = find_truths(truth, task)
    photographs = {name: each.image for name, each in truths.items() if not each.alone}
    readers, notes = _named_alike(prediction_readers(preds, task, benchmark, photographs), truths)
    missing, extra = sorted(set(truths) - set(readers)), sorted(set(readers) - set(truths))
    found = {"images without prediction": missing, "predictions without image": extra}
    faults = [f"{len(names)} {what} ({listed(names)})" for what, names in found.items() if names]
    if faults and not skip_missing:
        raise ValueError(f"{preds}: {' and '.join(faults)}; there must be one for each image of {truth}")
    both = [name for name in truths if name in readers]
    if not both:
        raise ValueError(f"{preds}: {' and '.join(faults)}: no image of {truth} has a prediction of its name")
    notes += [f"{fault}: left out" for fault in faults]
    return Pairing({name: truths[name] for name in both}, {name: readers[name] for name in both}, missing, extra, notes)


def _named_alike(readers: dict[str, Reader], truths: Mapping[str, Truth]) -> tuple[dict[str, Reader], list[str]]:
    """Predictions by the names of their images, as far as they have a text more or less than these, and what was done."""
    if readers.keys() & truths.keys():
        return readers, []
    if affix := common_affix(readers, truths):
        named = {affix.off(name) or name: reader for name, reader in readers.items()}
        return named, [f"predictions have {affix} of the names of images: taken off"]
    if affix := common_affix(truths, readers):
        named = {name: readers[affix.off(name) or name] for name in truths}
        return named, [f"images have {affix} of the names of predictions: taken off"]
    return readers, []


def _levels(prediction: Reader, size: tuple[int, int]) -> Levels:
    if isinstance(prediction, MapFile | MasksOfImage):
        return prediction.levels(size)
    masks, _ = prediction(size)
    return Levels(masks.any(0).numpy().view(np.uint8), 1, size)
