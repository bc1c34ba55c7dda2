"""Curves over thresholds on disk: `curves.json` in a folder of results.

{benchmark: {"threshold": [...], "precision": [...], "recall": [...], "f_measure": [...], "e_measure": [...]}}, each a mean
over images at the same thresholds; a benchmark without maps has none.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning_sal.files.reading import read_object

FILE = "curves.json"
Curves = dict[str, list[float]]  # threshold, precision and so on -> a value a threshold


def read_curves(folder: Path) -> dict[str, Curves]:
    """Benchmark -> its curves; empty where the folder holds none.

    Raises:
        ValueError: The file holds other things than lists of numbers, each benchmark's of one length.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    found = read_object(path)
    for benchmark, curves in found.items():
        if not isinstance(curves, dict) or not all(map(_are_numbers, curves.values())):
            raise ValueError(f"{path}: {benchmark}: a curve is a list of numbers")
        lengths = {len(values) for values in curves.values()}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"{path}: {benchmark}: its curves are of one length, which is not {sorted(lengths)}")
    return found


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
