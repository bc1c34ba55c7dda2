"""Tables in pages of HTML: their look, how they scroll where they are wider than the page, and how their columns sort."""

from __future__ import annotations

from html import escape

STYLE = """
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
caption { text-align: left; padding-bottom: .4rem }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--rule) }
tbody th, td.words, thead th.words { text-align: left; font-weight: 400 }
td.words { overflow-wrap: anywhere; min-width: 9rem; vertical-align: top }
thead th { vertical-align: bottom }
thead button { all: unset; cursor: pointer; text-decoration: underline dotted }
thead button:focus-visible { outline: 2px solid }
@media print { .wide { overflow: visible } table { font-size: .7rem } }
"""
# A click on the head of a column sorts by it, the best first; another one the other way round. Nothing else needs a script.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.tHead.rows[1].querySelectorAll("th").forEach((head, at) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const other = head.getAttribute("aria-sort") === head.dataset.first;
      table.tHead.querySelectorAll("[aria-sort]").forEach((each) => each.removeAttribute("aria-sort"));
      const way = other === (head.dataset.first === "ascending") ? "descending" : "ascending";
      head.setAttribute("aria-sort", way);
      const value = (row) => row.cells[at].dataset.value;
      const compare = (a, b) => head.classList.contains("words") ? a.localeCompare(b) : a - b;
      const rows = [...body.rows], known = rows.filter((row) => value(row) !== "");
      known.sort((a, b) => (way === "ascending" ? 1 : -1) * compare(value(a), value(b)));
      body.append(...known, ...rows.filter((row) => value(row) === ""));
    };
  });
}
"""


def table_parts(head: str, body: str) -> str:
    """The two parts of a table."""
    return f"<thead>{head}</thead><tbody>{body}</tbody>"


def scrolled(label: str, table: str) -> str:
    """A table that is moved sideways where it is wider than the page, also by the keyboard."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">{table}</div>'
