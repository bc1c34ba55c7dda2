"""COCO's run lengths of masks, and the strings that they are written as.

The runs of an (H, W) mask are lengths of background and object by turns, down the columns, from the background on. As a
string each is little-endian 5-bit groups from chr(48), bit 6 for "more follows"; from the fourth on it is the difference to
the run before the last.

pycocotools reads a string that is cut off as a mask of whatever the memory holds (2.0.11), which here is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def of_mask(mask: np.ndarray) -> np.ndarray:
    """The runs (R,) int64 of an (H, W) bool mask."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.diff(np.concatenate(([0] if flat.size and flat[0] else [], changes, [flat.size])), prepend=0).astype(
        np.int64
    )


def to_string(runs: Iterable[int]) -> str:
    """The string of some runs."""
    runs, text = list(map(int, runs)), []
    for at, run in enumerate(runs):
        value = run - runs[at - 2] if at > 2 else run
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text.append(chr(48 + group + 32 * more))
    return "".join(text)


def from_strings(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The runs of N masks, read together.

    Args:
        texts: N strings.

    Returns:
        The runs of all masks one behind the other (R,) int64, and how many each has (N,).

    Raises:
        ValueError: One is no such string.
    """
    groups = np.frombuffer("".join(texts).encode(errors="surrogatepass"), dtype=np.uint8) - np.uint8(48)
    if groups.max(initial=0) > 63:  # so is every byte of what is no ASCII
        raise ValueError("run lengths with characters that COCO's have not")
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    if not all(texts) or (groups[ends - 1] > 31).any():
        raise ValueError("run lengths that are cut off")
    last = np.flatnonzero(groups < 32)  # group of each value
    first = np.concatenate(([0], last[:-1] + 1))[: len(last)]
    lengths = last - first + 1
    if (longest := lengths.max(initial=0)) > 8:  # 40 bits
        raise ValueError("run lengths beyond any size")
    differences = (groups[first] & 31).astype(np.int64)
    for place in range(1, longest):
        some = np.flatnonzero(lengths > place)
        differences[some] += (groups[first[some] + place] & 31).astype(np.int64) << 5 * place
    differences -= ((groups[last] & 16) > 0) * (1 << 5 * lengths)
    counts = np.diff(np.searchsorted(last, ends), prepend=0)
    return _summed(differences, counts), counts


def _summed(differences: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Runs (R,) of N masks, of which each but the first of a mask is told by its difference to the one before the last; what
    is before the first two is 0.
    """
    sums = np.zeros(len(differences) + 2, dtype=np.int64)  # of every other value, over all masks
    for parity in (0, 1):
        np.cumsum(differences[parity::2], out=sums[2 + parity :: 2])
    starts = np.cumsum(counts) - counts
    odd = (np.arange(len(differences)) - np.repeat(starts, counts)) & 1
    runs = sums[2:] - sums[np.repeat(starts + 2, counts) - odd]
    runs[starts] = differences[starts]
    return runs
