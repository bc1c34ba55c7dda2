"""Answers as a gallery: pages of HTML that grow by an answer at a time, each whole without anything beside it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from lightning_sal.answer_page import answer_html, answer_style
from lightning_sal.prediction_files import append
from lightning_sal.samples import Prediction

A_PAGE = 200  # answers
MOST_EXPRESSIONS = 64  # whose masks light up

STYLE = """
:root { color-scheme: light dark; --paper: #f6f6f4; --card: #fff; --ink: #1d2129; --rule: #dcdfe4 }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1d2026; --ink: #e8eaee; --rule: #343841 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 90rem; padding: 2.5rem clamp(1rem, 4vw, 3rem); background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
header h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.015em }
header p { margin: .2rem 0 1.8rem; opacity: .7 }
main { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)) }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: .8rem; padding: 1rem; break-inside: avoid }
.card.group { grid-column: 1 / -1 }
.card h2 { display: flex; justify-content: space-between; gap: 1rem; margin: 0 0 .7rem; font-size: .95rem;
  font-weight: 600; overflow-wrap: anywhere }
.card h2 small { font-weight: 400; opacity: .6; white-space: nowrap }
nav, .unanswered { grid-column: 1 / -1 }
a { color: inherit }
@media print { body { padding: 0 } .card { border-color: #999 } }
"""


class Gallery:
    """`index.html` in a folder, and `index-2.html` and so on where there are many answers.

    Each page is a line for its head and a line an answer, so that a run which was killed goes on from whole lines.

    Args:
        folder: Where the pages are.
        title: Of each page.
        subtitle: Below it.
        answers: How many of the answers in the pages are to be kept; what comes after them goes.

    Raises:
        ValueError: The pages do not hold so many answers.
    """

    def __init__(self, folder: Path, title: str, subtitle: str, answers: int = 0) -> None:
        self.folder, self.title, self.subtitle, self.answers = folder, title, subtitle, answers
        if answers:
            page, kept = self._page((answers - 1) // A_PAGE), (answers - 1) % A_PAGE + 2
            _keep_lines(page, kept)

    def add(self, prediction: Prediction) -> None:
        """Add one answer."""
        number, at = divmod(self.answers, A_PAGE)
        page = self._page(number)
        if not at:
            if number:
                append(self._page(number - 1), _link(page, "next page"))
            page.write_text(self._head(number), encoding="utf-8", errors="replace")
        append(page, _card(prediction))
        self.answers += 1

    def finish(self, unanswered: Sequence[str]) -> Path:
        """End the last page by a list of what was not answered, and why; gives the first page."""
        last = self._page(max(0, self.answers - 1) // A_PAGE)
        if not self.answers:
            last.write_text(self._head(0), encoding="utf-8", errors="replace")
        if unanswered:
            lines = "".join(f"<li>{html.escape(line)}</li>" for line in unanswered)
            append(last, f'<section class="card unanswered"><h2>Not answered</h2><ul>{lines}</ul></section>')
        return self._page(0)

    def _page(self, number: int) -> Path:
        return self.folder / ("index.html" if not number else f"index-{number + 1}.html")

    def _head(self, number: int) -> str:
        title, subtitle = html.escape(self.title), html.escape(self.subtitle)
        style = " ".join(STYLE.split()) + answer_style(MOST_EXPRESSIONS)
        back = _link(self._page(number - 1), "previous page") if number else ""
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{title}</title><style>{style}</style><header><h1>{title}</h1><p>{subtitle}</p></header><main>{back}\n"
        )


def _card(prediction: Prediction) -> str:
    group = prediction.group
    several = len(group.images) > 1
    name = f"{Path(group.paths[0]).parent.name}, {len(group.images)} images" if several else Path(group.key).name
    title = f'<h2 title="{html.escape(group.key)}">{html.escape(name)}<small>{html.escape(group.task)}</small></h2>'
    return f'<div class="card{" group" * several}">{title}{answer_html(prediction, style=False)}</div>'.replace(
        "\n", " "
    )


def _link(page: Path, words: str) -> str:
    return f'<nav><a href="{page.name}">{words}</a></nav>'


def _keep_lines(path: Path, wanted: int) -> None:
    """Cut a file off behind its first lines.

    Raises:
        ValueError: It has fewer.
    """
    if path.is_file():
        with path.open("r+b") as file:
            found = sum(file.readline().endswith(b"\n") for _ in range(wanted))
            if found == wanted:
                file.truncate(file.tell())
                return
    raise ValueError(f"{path}: answers are missing that predictions.jsonl lists; start anew with --overwrite")
