"""Saliency maps as files of NumPy: one array, (H, W) or with axes of length 1 beside; nothing pickled is ever loaded."""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from lightning_sal.datasets.decoding import DECODER_ERRORS, UnreadableSample, check_file, unreadable

SUFFIXES = frozenset({".npy", ".npz"})
MODES = {"b": "1", "f": "F"}  # kind of numbers -> Pillow's mode of an image with such, for those of one kind
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What NumPy and zipfile raise of a broken file, among them of an archive that is locked (RuntimeError) or packed in a way
# that is not known (NotImplementedError), and of a header that promises more than memory holds
ERRORS = (*DECODER_ERRORS, zipfile.BadZipFile, tokenize.TokenError, NotImplementedError, RuntimeError, MemoryError)


def array_mode(path: Path) -> str:
    """Pillow's mode of an image with the same numbers; from the header alone.

    Raises:
        UnreadableSample: It is no file of one array of numbers.
    """
    with _opened(path) as file:
        return _mode(file)


def array_levels(path: Path) -> tuple[np.ndarray, str]:
    """The values as they stand, and Pillow's mode of an image with the same numbers.

    Returns:
        (H, W) uint8 (0 and 1 of bool), uint16 (of other whole numbers) or float64; and the mode.

    Raises:
        UnreadableSample: It is no file of one array of numbers from 0 to 65535, or of more than two axes.
    """
    with _opened(path) as file:
        mode = _mode(file)
        file.seek(0)
        values = npy.read_array(file, allow_pickle=False)
    if values.ndim > 2:
        values = values.reshape([length for length in values.shape if length != 1])
    if values.ndim != 2 or not values.size:
        raise UnreadableSample(f"{path}: an array of {values.shape}, where (height, width) must stand")
    if values.dtype.kind == "b":
        return np.minimum(values.view(np.uint8), 1), mode
    if values.dtype == np.uint8:
        return values, mode
    if values.dtype.kind == "f":
        values = values.astype(np.float64)  # first: half precision cannot be compared with 65535
    if not (values.min() >= 0 and values.max() <= 65535):
        raise UnreadableSample(f"{path}: {values.dtype} with values outside 0 to 65535")
    return values if values.dtype.kind == "f" else values.astype(np.uint16), mode


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file of the array, which lies packed in an npz."""
    try:
        check_file(path)
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                arrays = ", ".join(sorted(names)[:8]) or "none"
                raise UnreadableSample(f"{path}: {len(names)} arrays ({arrays}): keep the one that is the map")
            with archive.open(names[0]) as file:
                yield file
    except ERRORS as error:
        raise unreadable(path, error) from error


def _mode(file: IO[bytes]) -> str:
    """Pillow's mode of an image with an array's numbers, of which there are no more than an image may have pixels."""
    if file.read(len(npy.MAGIC_PREFIX)) != npy.MAGIC_PREFIX:
        raise ValueError("not an array of NumPy")
    file.seek(0)
    if (version := npy.read_magic(file)) not in READERS:
        raise ValueError("an array of records, where numbers must stand")
    shape, _, kind = READERS[version](file)
    if kind.hasobject:
        raise ValueError("holds pickled objects, which are never loaded: save an array of numbers")
    if kind.kind not in "buif":
        raise ValueError(f"an array of {kind}, where numbers must stand")
    if prod(shape) > (Image.MAX_IMAGE_PIXELS or prod(shape)):
        raise ValueError(f"an array of {shape}, more numbers than a map may have pixels")
    return "L" if kind == np.uint8 else MODES.get(kind.kind, "I")
