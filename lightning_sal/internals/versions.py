"""Which versions of other libraries this one was tested with: the ranges that its wheel states."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement


@cache
def _ranges() -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in metadata.requires("lightning-sal") or ()]
    return {each.name: each for each in requirements}


def tested_range(library: str) -> str:
    """A library and the range of its versions that was tested, as pip takes it: `peft<0.22,>=0.18`."""
    found = _ranges()[library]
    return f"{library}{found.specifier}"


@cache
def warn_untested(*libraries: str) -> None:
    """Say in one line each, once, which of some libraries is of a version that was not tested."""
    for library in libraries:
        version = metadata.version(library)
        if not _ranges()[library].specifier.contains(version, prereleases=True):
            warnings.warn(
                f"{library} {version} was not tested with lightning-sal, {tested_range(library)} was: numbers may be wrong"
            )
