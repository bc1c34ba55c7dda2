"""In which range the saliency maps of a folder are written, where it is not that of their type.

Other programs write maps of 0 and 1 into 8 bits, 8-bit values into 16 bits, and 0 to 255 as floats. One file cannot tell
a map in another range from a dark one; a folder can. The range of all files of one type is the smallest of 1, 255 and
65535 that holds their largest value. Maps of 1 bit hold 0 and 1, and are in no other range.

The headers of all files are read, and of each type as many files as it takes to see that no smaller range holds them: for
8 bits, usually one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_sal.datasets.decoding import UnreadableSample
from lightning_sal.datasets.pixels import RANGES, ROUNDING, type_range
from lightning_sal.predictions.map_files import map_levels, map_mode

TYPES = {1: "floats", 255: "8 bits", 65535: "16 bits"}


def find_ranges(files: Sequence[Path]) -> tuple[dict[Path, int], list[str]]:
    """The value that means 1 in each of some maps.

    Args:
        files: The maps of one method, on one benchmark.

    Returns:
        File -> its range, without the files that cannot be read; and a line for each type that is read in another range
        than its own.

    Raises:
        UnreadableSample: Floats exceed 1 by too little to be of another range.
    """
    by_mode: dict[str, list[Path]] = {}
    for file in files:
        try:
            by_mode.setdefault(map_mode(file), []).append(file)
        except UnreadableSample:  # named where it is scored
            continue
    ranges, lines = dict.fromkeys(by_mode.pop("1", ()), 1), list[str]()
    by_type: dict[int, list[Path]] = {}
    for mode, group in by_mode.items():
        by_type.setdefault(type_range(mode), []).extend(group)
    for own, group in by_type.items():
        top, largest = _range_of(group, own)
        ranges |= dict.fromkeys(group, top)
        if top != own:
            lines.append(f"{len(group)} maps of {TYPES[own]} hold nothing above {largest:g}: read as 0 to {top}")
    return ranges, lines


def _range_of(files: Sequence[Path], own: int) -> tuple[int, float]:
    """The range of some files of one type, and their largest value as far as it was looked for."""
    largest = 0.0
    for file in files:
        try:
            largest = max(largest, float(map_levels(file)[0].max()))
        except UnreadableSample:
            continue
        if own == 1 and 1 + ROUNDING < largest < 2:
            raise UnreadableSample(
                f"{file}: floats up to {largest:g} are neither of 0 to 1 nor of 0 to 255: rescale them"
            )
        if own != 1 and largest > RANGES[RANGES.index(own) - 1]:
            return own, largest  # no other range can hold all
    fitting = next(top for top in RANGES if largest <= top + ROUNDING)
    return (fitting if largest else own), largest
