"""What pages of HTML share that need nothing beside them: their look, their head, images inside addresses."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from PIL import Image

from lightning_sal.files.writing import whole

STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --ink: #1d2129; --rule: #dcdfe4 }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1d2026; --ink: #e8eaee; --rule: #343841 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 90rem; padding: 2.5rem clamp(1rem, 4vw, 3rem); background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.015em }
a { color: inherit }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: .8rem; padding: 1rem; break-inside: avoid }
.pictures { display: grid; gap: .5rem; align-items: start }
.pictures img { display: block; max-width: 100%; height: auto; border-radius: .3rem; outline: 1px solid var(--rule) }
@media print { body { padding: 0 } .card { border-color: #999 } }
"""


def page_head(title: str, style: str = "") -> str:
    """The beginning of a page, on one line; the title is escaped.

    Args:
        title: Of the page.
        style: Rules beside those that all pages share.
    """
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{' '.join((STYLE + style).split())}</style>"
    )


def escaped(text: str) -> str:
    """Text as HTML on one line; its line ends stay what they are."""
    return html.escape(text).replace("\r", "&#13;").replace("\n", "&#10;")


def data_uri(image: Image.Image, kind: str = "JPEG", **options: object) -> str:
    """An image file inside an address; `options` are those of PIL's `save`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def require_free(path: Path) -> None:
    """Refuse to write a page over a file.

    Raises:
        FileExistsError: The file is there.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already, and is not overwritten; name another file")


def write_page(page: str, path: Path) -> None:
    """Write a page in one piece; its folder is made. What UTF-8 has no sign for, as in names of files, is escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")
