"""Replies that are kept by what was asked, so that nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning_sal.files.writing import naming


def content_key(*deciding: Any) -> str:
    """SHA-256 of all that decides a reply, as values of JSON."""
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


class ReplyCache:
    """What was replied, by content: in memory, and in a folder where there is one, a file a reply.

    Args:
        folder: Made when it is first written to; several processes may share it. None for memory alone.

    What is kept is a value of JSON: a text, or the fields of a whole reply.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._memory: dict[str, Any] = {}

    def __len__(self) -> int:
        """How many replies there are."""
        return len(self._memory) if self.folder is None else sum(1 for _ in self.folder.glob("*/*.json"))

    def get(self, key: str) -> Any:
        """The reply of a key, or None; a file that holds none is none."""
        if key not in self._memory and self.folder is not None:
            try:
                reply = json.loads(self._path(key).read_text(encoding="utf-8"))["reply"]
            except (OSError, ValueError, KeyError, TypeError):
                return None
            self._memory[key] = reply
        return self._memory.get(key)

    def keep(self, key: str, reply: Any) -> None:
        """Keeps a reply; its file takes its name once it is whole.

        Raises:
            OSError: It cannot be written; the line names the folder.
        """
        self._memory[key] = reply
        if self.folder is None:
            return
        path = self._path(key)
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")  # of this writer alone
        try:
            with naming(self.folder, path.name):
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps({"reply": reply}), encoding="utf-8")
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.json"
