"""Commands as the user of this process would type them."""

from __future__ import annotations

import os
import re
import shlex
from importlib import metadata


def typed(*words: object) -> str:
    """A command to copy, after `uv run` where this process was started so.

    Args:
        words: The program, as `lightning-sal`, and its arguments, unquoted.
    """
    start = ("uv", "run") if "UV_RUN_RECURSION_DEPTH" in os.environ else ()
    return shlex.join([*start, *map(str, words)])


def installing(extra: str) -> str:
    """The command that installs what an extra of this package adds; it names the packages, so it needs no index that has us.

    Args:
        extra: One of `[project.optional-dependencies]`.
    """
    start = ("uv",) if "UV_RUN_RECURSION_DEPTH" in os.environ else ()
    return shlex.join([*start, "pip", "install", *_needed(extra)])


def lacking(extra: str) -> list[str]:
    """The packages of an extra that are not installed; nothing is imported to find out."""
    return [name for line in _needed(extra) if not _installed(name := re.split(r"[^\w.-]", line)[0])]


def _needed(extra: str) -> list[str]:
    found = [re.split(r";\s*extra\s*==\s*", line) for line in metadata.requires("lightning-sal") or ()]
    return [line[0].strip() for line in found if len(line) == 2 and line[1].strip("'\" ") == extra]


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
