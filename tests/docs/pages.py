"""What the pages hold that a reader may run: fenced blocks, and the commands in those of a shell."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "conf/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
in_checkout = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are in the repository only")
FENCE = re.compile(r"^(?P<indent> *)``` *{?\.?(?P<language>[\w-]*)[^\n`]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language: The word behind the fence.
        line: Number of its first line of text, from 1.
        text: What it holds, without the indentation of a list or tab around it.
    """

    language: str
    line: int
    text: str

    @property
    def included(self) -> bool:
        """Whether it shows a file, by a snippet."""
        return self.text.startswith("--8<--")


def blocks(page: str) -> list[Block]:
    return [
        Block(match["language"], page.count("\n", 0, match.start("text")) + 1, textwrap.dedent(match["text"]))
        for match in FENCE.finditer(page)
    ]


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page)


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The commands of a block with the numbers of their lines: each in `bash`, those behind `$ ` in `console`."""
    begun, start = "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        if not begun:
            start = number
            if block.language == "console":
                if not line.startswith("$ "):
                    continue
                line = line.removeprefix("$ ")
        begun += line
        if begun.endswith("\\"):
            begun = begun.removesuffix("\\")
            continue
        if words := shlex.split(begun, comments=True):
            yield start, words
        begun = ""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def place_exists(place: str) -> bool:
    """Whether a dotted name is that of a module, or of what one holds."""
    try:
        resolve_name(place)
    except (ImportError, AttributeError):
        return False
    return True
