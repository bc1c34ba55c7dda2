"""Whether each colour of an instance file is an object, or most are what JPEG, smoothing or a photograph leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_sal.datasets.decoding import UnreadableSample

FEWEST_SEAMS = 4  # colours; a few slivers that touch other objects are nothing odd
MOST_PIXELS = 2**32  # of all instances of a photograph together


def check_colours(codes: np.ndarray, colours: np.ndarray, path: str | Path, lossy: bool) -> None:
    """Refuse an instance file whose colours are not its objects.

    A colour is a seam where it lies nowhere around a pixel on all sides and touches another colour: an object that is so
    thin may be, but where most colours are, they are blends at the edges of the others. Small and thin objects on the
    background, and crowds, are not affected.

    Args:
        codes: (h, w), a number a colour; -1 for the background.
        colours: The I numbers that there are without the background's.
        path: Named in the message.
        lossy: Whether the file's format blends colours whatever it shows, as JPEG does; more than one colour is refused.

    Raises:
        UnreadableSample: Most colours are seams, or the instances would take more memory than any photograph's do.
    """
    seams = _count_seams(codes, colours) if len(colours) > FEWEST_SEAMS else 0
    advice = "save one colour an object as PNG, resized by nearest neighbour and not smoothed"
    if lossy and len(colours) > 1:
        raise UnreadableSample(f"{path}: {len(colours)} colours in a JPEG, which blends those of objects: {advice}")
    if seams >= FEWEST_SEAMS and 2 * seams > len(colours):
        raise UnreadableSample(
            f"{path}: {len(colours)} colours, {seams} of them only seams between others and no objects: {advice}"
        )
    if len(colours) * codes.size > MOST_PIXELS:
        raise UnreadableSample(
            f"{path}: {len(colours)} colours on {codes.shape[1]} x {codes.shape[0]} pixels are too many"
        )


def _count_seams(codes: np.ndarray, colours: np.ndarray) -> int:
    height, width = codes.shape
    padded = np.pad(codes, 1, constant_values=-2)  # -2: outside, which is like any colour
    inner, touching = np.ones(codes.shape, bool), np.zeros(codes.shape, bool)
    for row in range(3):
        for column in range(3):
            beside = padded[row : row + height, column : column + width]
            inner &= (beside == codes) | (beside == -2)
            touching |= (beside >= 0) & (beside != codes)
    objects = np.unique(codes[inner])
    return len(np.setdiff1d(np.intersect1d(colours, codes[touching]), objects))
