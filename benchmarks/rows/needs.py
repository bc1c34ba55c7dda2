"""What `real_size.py` needs of a machine, looked up before anything is measured."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PYTHON = (3, 11)
MEMORY = 16  # GB of main memory: no weights are there, but whatever torch and its kernels load
DISK = 1  # GB for results and logs


def packages(pyproject: Path) -> Iterator[tuple[str, bool]]:
    """What the package depends on that is not here, or not in the version asked for: a line, and whether it is missing."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield "the package packaging is missing: install it", True
        return
    for asked in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        requirement = Requirement(asked)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield f"the package {requirement.name} is missing: install {asked}", True
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} is {version}, but {asked} is asked for: rows may fail", False


def machine(folder: Path) -> Iterator[str]:
    """What is too little, a line each.

    Args:
        folder: Of the results.
    """
    if sys.version_info < PYTHON:
        yield f"Python is {sys.version.split()[0]}: take {'.'.join(map(str, PYTHON))} or newer"
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK:
        yield f"{folder} has {free:.1f} GB of disk left: {DISK} GB are needed"
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    for line in lines:
        if line.startswith("MemAvailable") and (gigabytes := int(line.split()[1]) * 1024 / 1e9) < MEMORY:
            yield f"{gigabytes:.0f} GB of main memory are free: {MEMORY} GB are needed"
