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

from lightning_sal.datasets.decoding import UnreadableSample, check_file
from lightning_sal.datasets.pixels import RANGES, ROUNDING, map_levels, read_mode, type_range

TYPES = {1: "floats", 255: "8 bits", 65535: "16 bits"}
PNG = b"\x89PNG\r\n\x1a\n"
PNG_MODES = {(1, 0): "1", (16, 0): "I;16"}  # (bits, whether there are colours, a palette, opacity) -> mode


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
            by_mode.setdefault(_mode(file), []).append(file)
        except (UnreadableSample, OSError):  # named where it is scored
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


def _mode(file: Path) -> str:
    """Pillow's mode of a file, or "L" for a PNG of any with 8 bits; its first bytes tell, in a tenth of the time."""
    check_file(file)
    with file.open("rb") as stream:
        head = stream.read(len(PNG) + 18)
    if head.startswith(PNG) and len(head) == len(PNG) + 18:
        return PNG_MODES.get((head[-2], head[-1]), "L")
    return read_mode(file)


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
