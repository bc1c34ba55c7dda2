"""Answers as a gallery: pages of HTML that grow by an answer at a time, each whole without anything beside it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from lightning_sal.files.writing import whole
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer import answer_html, answer_style
from lightning_sal.pages.html import page_head
from lightning_sal.pages.prediction_files import append
from lightning_sal.tasks import get_task

A_PAGE, EXPLAINED_A_PAGE = 200, 20  # answers
MOST_EXPRESSIONS = 128  # whose masks light up

STYLE = """
header { margin-bottom: 1.8rem }
header p:not(.notice) { margin: .2rem 0 0; opacity: .7 }
.notice { margin: .6rem 0; padding: .5rem .8rem; border-left: .3rem solid #d98a00; background: var(--card);
  overflow-wrap: anywhere }
main { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)) }
.card h2 { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin: 0 0 .7rem;
  font-size: .95rem; font-weight: 600; overflow-wrap: anywhere }
.card h2 small { font-weight: 400; opacity: .6 }
.card:is(.group, :has(details[open])) { grid-column: 1 / -1 }
.card.group .images { grid-template-columns: repeat(auto-fill, minmax(min(100%, 11rem), 1fr)) }
@media (min-width: 60rem) {
  .card.group .answer { grid-template: auto auto auto 1fr / 3fr 2fr; gap: .8rem 1.6rem }
  .card.group .answer > * { grid-column: 2 }
  .card.group .answer > .images { grid-area: 1 / 1 / span 4 }
}
nav, .unanswered { grid-column: 1 / -1 }
@media print { .hint { display: none } }
"""


class Gallery:
    """`index.html` in a folder, and `index-2.html` and so on where there are many answers.

    Each page is a line for its head and a line an answer, so that a run which was killed goes on from whole lines.

    Args:
        folder: Where the pages are.
        title: Of each page.
        subtitle: Below it.
        answers: How many of the answers in the pages are to be kept; what comes after them goes.
        explained: Whether answers come with maps, a picture a word: a page then holds fewer of them.
        notice: What is to be known before the answers are believed; none where it is empty.

    Raises:
        ValueError: The pages do not hold so many answers.
    """

    def __init__(
        self, folder: Path, title: str, subtitle: str, answers: int = 0, *, explained: bool = False, notice: str = ""
    ) -> None:
        self.folder, self.title, self.subtitle, self.answers, self.notice = folder, title, subtitle, answers, notice
        self._a_page = EXPLAINED_A_PAGE if explained else A_PAGE
        if answers:
            page, kept = self._page((answers - 1) // self._a_page), (answers - 1) % self._a_page + 2
            _keep_lines(page, kept)

    def add(self, prediction: Prediction) -> None:
        """Add one answer."""
        number, at = divmod(self.answers, self._a_page)
        page = self._page(number)
        if not at:
            if number:
                append(self._page(number - 1), _link(page, "next page"))
            with whole(page) as part:
                part.write_text(self._head(number), encoding="utf-8", errors="replace")
        append(page, _card(prediction))
        self.answers += 1

    def finish(self, unanswered: Sequence[str]) -> Path:
        """End the last page by a list of what was not answered, and why; gives the first page."""
        last = self._page(max(0, self.answers - 1) // self._a_page)
        if not self.answers:
            with whole(last) as part:
                part.write_text(self._head(0), encoding="utf-8", errors="replace")
        if unanswered:
            lines = "".join(f"<li>{html.escape(line)}</li>" for line in unanswered)
            append(last, f'<section class="card unanswered"><h2>Not answered</h2><ul>{lines}</ul></section>')
        return self._page(0)

    def _page(self, number: int) -> Path:
        return self.folder / ("index.html" if not number else f"index-{number + 1}.html")

    def _head(self, number: int) -> str:
        notice = f'<p class="notice">{html.escape(self.notice)}.</p>' if self.notice else ""
        back = _link(self._page(number - 1), "previous page") if number else ""
        return (
            f"{page_head(self.title, STYLE + answer_style(MOST_EXPRESSIONS))}"
            f"<header><h1>{html.escape(self.title)}</h1><p>{html.escape(self.subtitle)}</p>"
            f"{notice}"
            '<p class="hint">Point at an expression, tap it, or reach it by the tab key, to see its mask alone.</p></header>'
            f"<main>{back}\n"
        )


def _card(prediction: Prediction) -> str:
    group = prediction.group
    several = len(group.images) > 1
    name = f"{Path(group.paths[0]).parent.name}, {len(group.images)} images" if several else Path(group.key).name
    title = f'<h2 title="{html.escape(group.key)}">{html.escape(name)}<small>{get_task(group.task).title}</small></h2>'
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
