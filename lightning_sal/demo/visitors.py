"""Whose a file is: a visitor is known by a cookie, and has what he uploaded and what was made for him."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping

COOKIE = "lightning-sal-visitor"
MOST = 100_000  # files that are remembered, the newest; uploads are deleted after an hour


def visitor_of(cookies: Mapping[str, str]) -> str | None:
    """Who asks, or None where nobody has told him who he is."""
    visitor = cookies.get(COOKIE, "")
    return visitor if re.fullmatch("[0-9a-f]{32}", visitor) else None


class Visitors:
    """The files of each visitor, and those of all."""

    def __init__(self) -> None:
        self._shared: set[str] = set()
        self._given: dict[tuple[str | None, str], None] = {}  # oldest first

    @staticmethod
    def welcome() -> str:
        """A name for a new visitor that nobody can guess."""
        return secrets.token_hex(16)

    def share(self, paths: Iterable[str]) -> None:
        """Let every visitor see some files."""
        self._shared.update(paths)

    def give(self, visitor: str | None, path: str) -> None:
        """Let a visitor see a file."""
        self._given[visitor, path] = None
        if len(self._given) > MOST:
            del self._given[next(iter(self._given))]

    def may_see(self, visitor: str | None, path: object) -> bool:
        """Whether a file is the visitor's or everyone's; the path counts as it is written, so nothing resolves to one."""
        return isinstance(path, str) and (path in self._shared or (visitor, path) in self._given)
