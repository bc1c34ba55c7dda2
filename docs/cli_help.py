"""A hook of mkdocs: puts what `lightning COMMAND --help` says in the place of `<!-- help of every command -->`."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from unittest.mock import patch

from lightning_sal.cli import main
from lightning_sal.commands import available

PLACE = "<!-- help of every command -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    return markdown.replace(PLACE, "\n".join(map(section, available()))) if PLACE in markdown else markdown


def section(name: str) -> str:
    return f"## {name}\n\n```text\n{help_of(name)}```\n"


def help_of(name: str) -> str:
    """What a command prints, as on a terminal of 92 columns."""
    shown = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": "92", "NO_COLOR": "1"}), redirect_stdout(shown):
        try:
            main([name, "--help"])
        except SystemExit as stop:
            if stop.code:
                raise
    return shown.getvalue()
