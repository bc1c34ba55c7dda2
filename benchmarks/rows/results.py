"""A file of results, a line of JSON each, which grows row by row and outlives what is interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Results:
    """The file `rows.jsonl` of a folder.

    Args:
        folder: Made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "rows.jsonl"

    def all(self) -> list[dict[str, Any]]:
        """Of each row and what it was given the last record, in the order of the file."""
        found: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(self.path.read_text().splitlines() if self.path.exists() else (), 1):
            try:
                record = json.loads(line)
            except ValueError:
                print(f"{self.path}, line {number} is cut off: that row is measured again", flush=True)
                continue
            key = json.dumps([record["row"], record["given"]])
            found[key] = record
        return list(found.values())

    def of(self, row: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of a row that was measured with the same given."""
        kept = (each for each in self.all() if each["row"] == row and each["given"] == given and "values" in each)
        return next(kept, None)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record, on the disk when this returns."""
        whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")
        with self.path.open("a") as file:
            file.write(("" if whole else "\n") + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
