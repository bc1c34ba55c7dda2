"""Photographs and masks of one name, brought together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_sal.datasets.decoding import SUFFIXES
from lightning_sal.datasets.files import stem
from lightning_sal.datasets.records import Annotation, Photograph

LOSSY = frozenset({".jfif", ".jpe", ".jpeg", ".jpg"})


def match_stems(
    images: Sequence[Path], masks: Sequence[Path], annotate: Callable[[Path], Annotation]
) -> dict[str, list[Photograph]]:
    """Stem -> the photograph with its mask; then an entry with its fault for each file that belongs to no sample.

    An image without a mask, and several images or masks of one stem, are a photograph with that fault. Of several images
    one that alone can be read is taken, and of several masks one that alone is no JPEG; the others are strays then, as are
    masks without an image.

    Args:
        images: The photographs.
        masks: The masks.
        annotate: Mask file -> how it is read.
    """
    by_stem: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, files in enumerate((images, masks)):
        for file in files:
            by_stem.setdefault(stem(file), ([], []))[side].append(file)
    return {name: _photographs(*by_stem[name], annotate) for name in sorted(by_stem)}


def _photographs(images: list[Path], masks: list[Path], annotate: Callable[[Path], Annotation]) -> list[Photograph]:
    if not images:
        return [_stray(mask, "a mask without an image") for mask in masks]
    (images, worse), (masks, lossy) = _preferred(images, SUFFIXES), _preferred(masks, SUFFIXES - LOSSY)
    strays = [_stray(image, f"not read, {images[0]} is") for image in worse]
    strays += [_stray(mask, f"not read, {masks[0]} is the mask without loss") for mask in lossy]
    match images, masks:
        case [image], [mask]:
            return [Photograph(image, annotate(mask)), *strays]
        case [image, *_], []:
            return [Photograph(image, fault=f"{image}: an image without a mask"), *strays]
    names = ", ".join(str(file) for file in (images if len(images) > 1 else masks))
    return [Photograph(images[0], fault=f"{images[0]}: several files of one stem: {names}"), *strays]


def _stray(file: Path, why: str) -> Photograph:
    return Photograph(file, fault=f"{file}: {why}", stray=True)


def _preferred(files: list[Path], suffixes: frozenset[str]) -> tuple[list[Path], list[Path]]:
    """The one file that alone has one of these suffixes, and the others; or all files, and none."""
    good = [file for file in files if file.suffix.lower() in suffixes]
    return (good, [file for file in files if file not in good]) if len(good) == 1 else (files, [])
