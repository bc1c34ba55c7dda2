"""Finding samples from a folder alone: a layout is looked for in the folder, then in the folders below it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePath

from lightning_sal.datasets.files import composed, image_files, stem, subfolders, visible
from lightning_sal.datasets.records import Annotation, Record
from lightning_sal.datasets.stems import match_stems

log = logging.getLogger(__name__)

DEPTH = 3
NAMED = 8  # files or folders that a message lists
SPLIT = re.compile(r"(?<![a-z])(train|tr|validation|valid|val|test[ab]|test|te)(?:ing)?(?:[-_ ]?sets?)?(?![a-z])")
SPLITS = {
    "train": "train", "tr": "train", "validation": "val", "valid": "val", "val": "val", "test": "test", "te": "test",
    "testa": "test", "testb": "test",
}  # fmt: skip
IMAGE_FOLDER = re.compile(r"(|.*[-_ ])(?:image|img)s?")
MASK_FOLDER = re.compile(r"(|.*[-_ ])(?:masks?|gts?|binary|ground[-_ ]?truths?(?:[-_ ]masks?)?|pixelwisegt.*)")
# What fewer datasets call them; looked for where there are no folders of the names above.
RARE_IMAGE_FOLDER = re.compile(r"(|.*[-_ .])(?:images?|imgs?|im|photos?|pictures?|jpegimages|src|rgb)(|[-_ .].*)")
RARE_MASK_FOLDER = re.compile(
    r"(|.*[-_ .])(?:masks?|gts?|binary|labels?|annotations?|segmentations?|ground[-_ ]?truths?)(|[-_ .].*)"
)
INSTANCES = re.compile(r"(?<![a-z])inst(?:ances?)?(?![a-z])")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A dataset found below a root.

    Args:
        where: Its folder or list, relative to the root; "." for the root itself.
        records: Lists its samples.
        masks: Its mask files where it lies flat in image and mask files, by which such tasks can be told apart.
        folders: Its folders of images and of masks, by either of which it may be named.
        deep: Whether it was found by `Layout.match_deep`.
    """

    where: str
    records: Callable[[], list[Record]]
    masks: Sequence[Path] = ()
    folders: Sequence[Path] = ()
    deep: bool = False

    @property
    def split(self) -> str | None:
        return split_of(self.where)


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples lie on disk; each task says in which layout it is found.

    Args:
        name: What lies so, in a word or three, for messages.
        looked_for: What is recognised, in words, for the message where nothing is.
        match: The datasets that lie right in a folder (or are this file); none where it is no dataset.
        match_deep: The same for datasets whose images and masks lie in folders alike below an image and a mask folder;
            asked where `match` finds nothing at all.
        by_name: Whether its files are another task's as well, so that they are taken for this one only where it is named.
    """

    name: str
    looked_for: str
    match: Callable[[Path], list[Candidate]]
    match_deep: Callable[[Path], list[Candidate]] = lambda _: []
    by_name: bool = False

    def candidates(self, root: str | Path) -> list[Candidate]:
        """Every dataset of this layout in `root`, or, where it is none itself, in the folders below; or the one whose image
        folder or mask folder `root` is. Where there is no `root`, its name may be that of a split: `refcoco/testA` and
        `refcoco_testA` are the split testA of what `refcoco` holds."""
        root = Path(root)
        if not root.exists():
            if found := self._split_called(root):
                return found
            raise FileNotFoundError(f"{root}: no such folder")
        for match in (self.match, self.match_deep):
            if found := _search(match, root, ".", DEPTH) or _around(match, root):
                return [replace(candidate, deep=match is self.match_deep) for candidate in found]
        return []

    def holds(self, root: str | Path) -> bool:
        """Whether there is any dataset of this layout."""
        try:
            return bool(self.candidates(root))
        except FileNotFoundError:
            return False

    def _split_called(self, root: Path) -> list[Candidate]:
        """The one dataset of such a name, in the folder or list above, or in the one whose name stands before its own."""
        above, _, part = root.name.rpartition("_")
        if split_of(part) is None:
            return []
        for place, name in ((root.parent, root.name), (root.with_name(above or part), part)):
            if place.exists():
                found = [c for c in _search(self.match, place, ".", 1) if PurePath(c.where).name == name]
                if len(found) == 1:
                    return found
        return []

    def records(self, root: str | Path, split: str | None = None) -> list[Record]:
        """The samples of the one dataset, or the one split, that `root` holds.

        Args:
            root: A folder, or a list (COCO json) where the task has such.
            split: "train", "val" or "test" chooses where `root` holds several; a root without splits gives all.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: No known layout, an empty one, or more than one dataset fits; the message lists them.

        Masks without an image are left out, and a line of the log names them.
        """
        found = self.candidates(root)
        if not found:
            raise ValueError(
                f"{root}: no {self.name} layout; looked for {self.looked_for}; found {contents(Path(root))}"
            )
        split = split if Path(root).exists() else None  # else the name has said it
        fitting = [c for c in found if split is None or c.split in (None, split)]
        exact = [c for c in fitting if c.split == split]
        chosen = exact if len(exact) == 1 else fitting
        if len(chosen) != 1:
            wanted = f"for the split {split!r}, " if split else ""
            places = listed([c.where for c in found])
            raise ValueError(
                f"{root}: {wanted}{len(chosen)} of the datasets found here fit ({places}); name one of them"
            )
        records = without_strays(chosen[0].records(), root)
        if not records:
            raise ValueError(f"{root}: {chosen[0].where} holds no sample")
        return records


def _search(match: Callable[[Path], list[Candidate]], folder: Path, where: str, depth: int) -> list[Candidate]:
    here = [replace(c, where=_join(where, c.where)) for c in match(folder)]
    if here or depth == 0:
        return here
    return [c for sub in subfolders(folder) for c in _search(match, sub, _join(where, sub.name), depth - 1)]


def _around(match: Callable[[Path], list[Candidate]], root: Path) -> list[Candidate]:
    """The dataset that `root` holds the images or the masks of."""
    root = root.resolve()
    for above in list(root.parents)[:2]:
        if found := [replace(c, where=".") for c in match(above) if root in [place.resolve() for place in c.folders]]:
            return found[:1]
    return []


def without_strays(records: Sequence[Record], root: str | Path) -> list[Record]:
    """The records without the files that belong to no sample, which a line of the log names.

    Args:
        records: Of a dataset.
        root: Named in the line.
    """
    strays = [photo.path for record in records for photo in record.photographs if photo.stray]
    if not strays:
        return list(records)
    log.warning(f"{root}: left out {len(strays)} stray files ({listed([s.name for s in strays])}): check-data says why")
    kept = (replace(r, photographs=tuple(photo for photo in r.photographs if not photo.stray)) for r in records)
    return [record for record in kept if record.photographs]


def split_of(name: str) -> str | None:
    """The last word of a path that names a split, as "train", "val" or "test"; None without one."""
    words = SPLIT.findall(name.lower())
    return SPLITS[words[-1]] if words else None


def parallel_folders(folder: Path, instances: bool = False) -> list[tuple[Path, Path]]:
    """(image folder, mask folder) of the same name but for that word, as `X-Image` with `X-Mask`, or the only two there are.

    Args:
        folder: Where they lie.
        instances: Whether masks of instances are wanted; those in a folder that says so (`Instance GT`) are taken before
            others. Without, such a folder is none of masks.
    """
    subs = subfolders(folder)
    for image_name, mask_name in ((IMAGE_FOLDER, MASK_FOLDER), (RARE_IMAGE_FOLDER, RARE_MASK_FOLDER)):
        masks = [(sub, rest) for sub in subs if (rest := _rest(mask_name, INSTANCES.sub("", sub.name.lower())))]
        taken = {sub for sub, _ in masks}
        images = [(sub, rest) for sub in subs if sub not in taken and (rest := _rest(image_name, sub.name.lower()))]
        special = [(sub, rest) for sub, rest in masks if INSTANCES.search(sub.name.lower())]
        masks = (special if instances else []) or [pair for pair in masks if pair not in special]
        same = [(image, mask) for image, a in images for mask, b in masks if a == b]
        if same:
            return same
        if len(images) == len(masks) == 1:
            return [(images[0][0], masks[0][0])]
    return []


def _rest(pattern: re.Pattern[str], name: str) -> tuple[str, ...] | None:
    """The words before and behind the one that a pattern looks for; None where it is not there."""
    found = pattern.fullmatch(name)
    return tuple(part.strip("-_ .") for part in found.groups()) if found else None


def folders_alike(images: Path, masks: Path, holds: Callable[[Path], object]) -> list[tuple[Path, Path]]:
    """The pairs of folders that hold samples, right below an image and a mask folder under the same name, or inside
    folders that hold nothing else.

    Args:
        images: The image folder.
        masks: The mask folder.
        holds: Whether samples lie right in a folder.
    """
    images, masks = _unpacked(images, holds), _unpacked(masks, holds)
    if holds(images) and holds(masks):
        return [(images, masks)]
    below = {composed(sub.name): sub for sub in subfolders(masks)}
    pairs = [(sub, below[composed(sub.name)]) for sub in subfolders(images) if composed(sub.name) in below]
    return [(image, mask) for image, mask in pairs if holds(image) and holds(mask)]


def _unpacked(folder: Path, holds: Callable[[Path], object]) -> Path:
    """The folder, or the one far below it that is all it holds, as an archive leaves that brings its own folder."""
    while not (holds(folder) or image_files(folder)) and len(only := subfolders(folder)) == 1:
        folder = only[0]
    return folder


def named_pairs(
    pairs: Sequence[tuple[Path, Path]], folder: Path, found: Callable[[str, Path, Path], Candidate]
) -> list[Candidate]:
    """A candidate for each pair of folders, under the name by which it can be told from the others.

    Args:
        pairs: (image folder, mask folder).
        folder: To which names are relative.
        found: (name, image folder, mask folder) -> the candidate.
    """
    if len(pairs) == 1:
        return [found(".", *pairs[0])]
    images = [image for image, _ in pairs]
    sides = [image if images.count(image) == 1 else mask for image, mask in pairs]
    return [found(side.relative_to(folder).as_posix(), *pair) for side, pair in zip(sides, pairs, strict=True)]


def flat_pairs(
    folder: Path,
    task: str,
    annotate: Callable[[Path], Annotation],
    *,
    shared_folder: bool = False,
    instances: bool = False,
    deep: bool = False,
) -> list[Candidate]:
    """Datasets of image and mask in two parallel folders.

    Args:
        folder: Where they lie.
        task: Name of the task.
        annotate: Mask file -> how it is read.
        shared_folder: Whether jpg and png of one stem in one folder are such a dataset, too.
        instances: As for `parallel_folders`.
        deep: Whether the folders below both of the same name are looked into, not the two themselves.
    """

    def found(where: str, images: Path | list[Path], masks: Path | list[Path]) -> Candidate:
        folders = [place for place in (images, masks) if isinstance(place, Path)]
        images, masks = (image_files(side) if isinstance(side, Path) else side for side in (images, masks))
        return Candidate(where, partial(_single_records, task, images, masks, annotate), masks, folders)

    pairs = parallel_folders(folder, instances)
    if deep:
        return named_pairs([pair for i, m in pairs for pair in folders_alike(i, m, image_files)], folder, found)
    pairs = [(_inside_itself(i), _inside_itself(m)) for i, m in pairs]
    pairs = [(i, m) for i, m in pairs if image_files(i) and image_files(m)]
    if pairs:
        return named_pairs(pairs, folder, found)
    files = image_files(folder) if shared_folder else []
    masks = [file for file in files if file.suffix.lower() == ".png"]
    images = [file for file in files if file.suffix.lower() != ".png"]
    if {stem(file) for file in images} & {stem(file) for file in masks}:
        return [found(".", images, masks)]
    return []


def _inside_itself(folder: Path) -> Path:
    """The folder, or the one of its own name in it, as an archive leaves that is unpacked into a folder of its name."""
    inner = folder / folder.name
    return inner if inner.is_dir() and not image_files(folder) else folder


def _single_records(
    task: str, images: list[Path], masks: list[Path], annotate: Callable[[Path], Annotation]
) -> list[Record]:
    return [
        Record(name, task, (photo,))
        for name, photos in match_stems(images, masks, annotate).items()
        for photo in photos
    ]


def _join(where: str, below: str) -> str:
    return (Path(where) / below).as_posix()


def contents(root: Path) -> str:
    """What a folder holds, in few words: the folders with their numbers of images, and its files by suffix."""
    if not root.is_dir():
        return "a file"
    counted = list(islice(_counted(root, DEPTH), NAMED + 1))
    folders = [f"{place.relative_to(root).as_posix()}/ ({images} images)" for place, images in counted[:NAMED]]
    suffixes = [path.suffix.lower() or path.name for path in root.iterdir() if visible(path.name) and path.is_file()]
    files = [f"{suffixes.count(suffix)} x {suffix}" for suffix in sorted(set(suffixes))]
    return ", ".join(folders + ["..."] * (len(counted) > NAMED) + files) or "an empty folder"


def _counted(folder: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """The folders below that hold images or no folder, with their numbers of images."""
    for sub in subfolders(folder):
        images, below = len(image_files(sub)), subfolders(sub) if depth else []
        if images or not below:
            yield sub, images
        yield from _counted(sub, depth - 1) if below else ()


def listed(names: Sequence[str]) -> str:
    """The first few names, and whether there are more."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
