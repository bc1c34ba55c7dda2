"""write the packaged configs and prompts into a folder of your own, to be edited"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

PARTS = {"conf": "conf", "prompts": "annotation/prompts"}  # name in the folder -> place in the package


def main(argv: list[str]) -> int:
    """Write `conf/` and `prompts/` into a folder and say of each file whether it was written or left."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal init",
        description="Write the packaged configs into DIR/conf, and the prompts of annotate into DIR/prompts, to be edited. "
        "A file that is there is never changed: the list says whether it is equal to the packaged one or differs, as it "
        "does once it was edited or the package is of another version. Given again, the command adds what is missing. "
        "Commands that run in DIR take --config conf/... from there, and from the package what is not there.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that gets them, new or not")
    folder: Path = parser.parse_args(argv).folder

    outcomes = write_parts(folder)
    for path, outcome in outcomes.items():
        print(f"{outcome:<15}{path}")
    print("; ".join(f"{outcome}: {number}" for outcome, number in Counter(outcomes.values()).items()))
    print(f"Next, in {folder}: lightning fit --config conf/quickstart.yaml")
    return 0


def write_parts(folder: Path) -> dict[Path, str]:
    """Write the packaged configs and prompts that `folder` lacks.

    A file appears under its name whole or not at all: it is written in a temporary folder beside it, then linked, and a
    link never replaces what is there.

    Returns:
        Path of each file, in alphabetical order -> "written", "left, equal" or "left, differs".

    Raises:
        OSError: If a folder or file cannot be made; what was written before stays.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[Path, str] = {}
    with as_file(files("lightning_sal")) as package, TemporaryDirectory(dir=folder, prefix=".init-") as staging:
        for packaged, path in _pairs(package, folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = Path(staging) / f"{len(outcomes)}"  # a new name each: a file once linked is the user's
            staged.write_bytes(packaged.read_bytes())
            try:
                os.link(staged, path)
                outcomes[path] = "written"
            except FileExistsError:
                equal = path.is_file() and path.read_bytes() == packaged.read_bytes()
                outcomes[path] = "left, equal" if equal else "left, differs"
            except OSError as error:
                raise OSError(f"{path}: {error.strerror}; choose a folder whose file system has hard links") from error
    return outcomes


def _pairs(package: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each packaged file, and where it goes."""
    for name, place in PARTS.items():
        for packaged in sorted(path for path in (package / place).rglob("*") if path.is_file()):
            yield packaged, folder / name / packaged.relative_to(package / place)
