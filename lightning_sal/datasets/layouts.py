"""Finding samples from a folder alone: a layout is looked for in the folder, then in the folders below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lightning_sal.datasets.images import SUFFIXES
from lightning_sal.datasets.records import Annotation, Photograph, Record

DEPTH = 3
SPLIT = re.compile(r"(?<![a-z])(train|tr|validation|val|test|te)(?![a-z])")
SPLITS = {"train": "train", "tr": "train", "validation": "val", "val": "val", "test": "test", "te": "test"}
IMAGE_FOLDER = re.compile(r"(|.*[-_ ])(image|img)s?")
MASK_FOLDER = re.compile(r"(|.*[-_ ])(masks?|gts?|binary|ground[-_ ]?truths?([-_ ]masks?)?|pixelwisegt.*)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A dataset found below a root.

    Args:
        where: Its folder or list, relative to the root; "." for the root itself.
        records: Lists its samples.
        masks: Its mask files where it lies flat in image and mask files, by which such tasks can be told apart.
    """

    where: str
    records: Callable[[], list[Record]]
    masks: Sequence[Path] = ()

    @property
    def split(self) -> str | None:
        return split_of(self.where)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the benchmarks of one task lie on disk.

    Args:
        task: Name of the task.
        looked_for: What is recognised, in words, for the message where nothing is.
        match: The datasets that lie right in a folder (or are this file); none where it is no dataset.
    """

    task: str
    looked_for: str
    match: Callable[[Path], list[Candidate]]

    def candidates(self, root: str | Path) -> list[Candidate]:
        """Every dataset of this task in `root` or, where it is none itself, in the folders below it."""
        root = Path(root)
        if not root.exists():
            raise FileNotFoundError(f"{root}: no such folder")
        return self._search(root, ".", DEPTH)

    def records(self, root: str | Path, split: str | None = None) -> list[Record]:
        """The samples of the one dataset, or the one split, that `root` holds.

        Args:
            root: A folder, or a list (COCO json) where the task has such.
            split: "train", "val" or "test" chooses where `root` holds several; a root without splits gives all.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: No known layout, an empty one, or more than one dataset fits; the message lists them.
        """
        found = self.candidates(root)
        if not found:
            raise ValueError(
                f"{root}: no {self.task} layout; looked for {self.looked_for}; found {contents(Path(root))}"
            )
        fitting = [c for c in found if split is None or c.split in (None, split)]
        exact = [c for c in fitting if c.split == split]
        chosen = exact if len(exact) == 1 else fitting
        if len(chosen) != 1:
            wanted = f"for the split {split!r}, " if split else ""
            places = ", ".join(c.where for c in found)
            raise ValueError(
                f"{root}: {wanted}{len(chosen)} of the datasets found here fit ({places}); name one of them"
            )
        records = chosen[0].records()
        if not records:
            raise ValueError(f"{root}: {chosen[0].where} holds no sample")
        return records

    def _search(self, folder: Path, where: str, depth: int) -> list[Candidate]:
        here = [replace(c, where=_join(where, c.where)) for c in self.match(folder)]
        if here or depth == 0:
            return here
        return [c for sub in subfolders(folder) for c in self._search(sub, _join(where, sub.name), depth - 1)]


def split_of(name: str) -> str | None:
    """The last word of a path that names a split, as "train", "val" or "test"; None without one."""
    words = SPLIT.findall(name.lower())
    return SPLITS[words[-1]] if words else None


def subfolders(folder: Path) -> list[Path]:
    """The visible folders right below, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The image files right below, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def parallel_folders(folder: Path) -> list[tuple[Path, Path]]:
    """(image folder, mask folder) of the same prefix: `X-Image` with `X-Mask`, or the only two there are."""
    images = [(sub, m[1]) for sub in subfolders(folder) if (m := IMAGE_FOLDER.fullmatch(sub.name.lower()))]
    masks = [(sub, m[1]) for sub in subfolders(folder) if (m := MASK_FOLDER.fullmatch(sub.name.lower()))]
    same = [(image, mask) for image, a in images for mask, b in masks if a == b]
    if not same and len(images) == len(masks) == 1:
        return [(images[0][0], masks[0][0])]
    return same


def flat_pairs(
    folder: Path, task: str, annotate: Callable[[Path], Annotation], *, shared_folder: bool = False
) -> list[Candidate]:
    """Datasets of image and mask in two parallel folders, or with `shared_folder` also as jpg and png in one."""

    def found(where: str, images: list[Path], masks: list[Path]) -> Candidate:
        return Candidate(where, partial(_single_records, task, images, masks, annotate), masks)

    pairs = [(i, m) for i, m in parallel_folders(folder) if image_files(i) and image_files(m)]
    if pairs:
        return [found(i.name if len(pairs) > 1 else ".", image_files(i), image_files(m)) for i, m in pairs]
    files = image_files(folder) if shared_folder else []
    masks = [file for file in files if file.suffix.lower() == ".png"]
    images = [file for file in files if file.suffix.lower() != ".png"]
    if {file.stem for file in images} & {file.stem for file in masks}:
        return [found(".", images, masks)]
    return []


def match_stems(images: list[Path], masks: list[Path], annotate: Callable[[Path], Annotation]) -> dict[str, Photograph]:
    """Stem -> photograph with its mask; what has no partner, or several, becomes an entry with that fault.

    Args:
        images: The photographs.
        masks: The masks.
        annotate: Mask file -> how it is read.
    """
    by_stem: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, files in enumerate((images, masks)):
        for file in files:
            by_stem.setdefault(file.stem, ([], []))[side].append(file)
    return {stem: _photograph(*by_stem[stem], annotate) for stem in sorted(by_stem)}


def _photograph(images: list[Path], masks: list[Path], annotate: Callable[[Path], Annotation]) -> Photograph:
    match images, masks:
        case [image], [mask]:
            return Photograph(image, annotate(mask))
        case [], [mask, *_]:
            return Photograph(mask, fault=f"{mask}: a mask without an image")
        case [image, *_], []:
            return Photograph(image, fault=f"{image}: an image without a mask")
    names = ", ".join(str(file) for file in (images if len(images) > 1 else masks))
    return Photograph(images[0], fault=f"{images[0]}: several files of one stem: {names}")


def _single_records(
    task: str, images: list[Path], masks: list[Path], annotate: Callable[[Path], Annotation]
) -> list[Record]:
    return [Record(stem, task, (photo,)) for stem, photo in match_stems(images, masks, annotate).items()]


def _join(where: str, below: str) -> str:
    return (Path(where) / below).as_posix()


def contents(root: Path) -> str:
    """What a folder holds, in few words: its folders with their numbers of images, and its files by suffix."""
    if not root.is_dir():
        return "a file"
    folders = [f"{sub.name}/ ({len(image_files(sub))} images)" for sub in subfolders(root)]
    suffixes = [path.suffix.lower() or path.name for path in root.iterdir() if path.is_file()]
    files = [f"{suffixes.count(suffix)} x {suffix}" for suffix in sorted(set(suffixes))]
    return ", ".join(folders[:12] + ["..."] * (len(folders) > 12) + files) or "an empty folder"
