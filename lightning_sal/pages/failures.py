"""The worst images of each benchmark as one page that needs nothing beside it; its own script sorts and searches it."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from lightning_sal.pages.html import page_head
from lightning_sal.tasks.measures import Measure

STYLE = """
header p, .note { margin: .3rem 0 0; opacity: .75 }
h2 { margin: 2.4rem 0 .2rem; overflow-wrap: anywhere }
.controls { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: center; margin: 1.2rem 0 0 }
.controls[hidden], .failure[hidden] { display: none }
.controls :is(input[type=search], select) { font: inherit; color: inherit; padding: .35rem .6rem; border-radius: .4rem;
  background: var(--card); border: 1px solid var(--rule); max-width: 100% }
.failures { display: grid; gap: 1rem; margin-top: 1rem }
.failure { margin: 0; display: grid; gap: .8rem 1.2rem; align-content: start }
.failure .pictures { grid-template-columns: repeat(3, minmax(0, 1fr)) }
.failure .pictures img { width: auto; max-height: 22rem }
.failure .pictures small { opacity: .75 }
.failure h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere }
.failure h3 small { font-weight: 400; opacity: .7 }
.failure dl { display: flex; flex-wrap: wrap; gap: .3rem; margin: .5rem 0 0; font-size: .88rem;
  font-variant-numeric: tabular-nums }
.failure dl div { display: flex; gap: .4rem; padding: .1rem .5rem; border: 1px solid var(--rule); border-radius: .3rem }
.failure dl div:first-child { border-color: currentColor; font-weight: 600 }
.failure dt { opacity: .75 }
.failure dd { margin: 0 }
.failure p { margin: .5rem 0 0; font-size: .9rem; overflow-wrap: anywhere }
.failure p span { opacity: .75 }
@media (min-width: 62rem) { .failure { grid-template-columns: minmax(0, 3fr) minmax(15rem, 1fr) } }
@media (max-width: 40rem) { .failure .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  .failure .pictures > :first-child:nth-last-child(odd) { grid-column: 1 / -1 } }
@media print { .controls { display: none } }
"""
SCRIPT = """
const controls = document.querySelector(".controls"), [words, by, best] = controls.elements;
const all = [...document.querySelectorAll(".failure")], shown = controls.querySelector("output");
const numbers = new Map(all.map((each) => [each, JSON.parse(each.dataset.numbers)]));
const show = () => {
  const wanted = words.value.toLowerCase().trim();
  for (const each of all) each.hidden = !each.textContent.toLowerCase().includes(wanted);
  const [name, lower] = JSON.parse(by.value), way = (lower ? -1 : 1) * (best.checked ? -1 : 1);
  for (const section of document.querySelectorAll(".failures")) {
    const value = (each) => numbers.get(each)[name], known = (each) => value(each) !== undefined;
    const each = [...section.children];
    section.append(...each.filter(known).sort((a, b) => way * (value(a) - value(b))), ...each.filter((a) => !known(a)));
  }
  shown.textContent = `${all.filter((each) => !each.hidden).length} of ${all.length}`;
};
controls.addEventListener("input", show);
controls.addEventListener("submit", (event) => event.preventDefault());
controls.hidden = false;
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """An image, or a sample, on the page.

    Args:
        key: Of the sample.
        image: Its file; empty where it has none.
        numbers: Measure -> value, the one by which it is ranked first.
        words: What it is called -> the text, of what was asked and answered; empty ones are not shown.
        pictures: What it shows -> address of the picture.
    """

    key: str
    image: str
    numbers: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


def failures_page(
    name: str, worst: Mapping[str, Sequence[Failure]], counts: Mapping[str, int], measures: Mapping[str, Measure]
) -> str:
    """The page.

    Args:
        name: Of the method.
        worst: Name of a benchmark -> its failures, the worst first.
        counts: Name of a benchmark -> how many images were measured.
        measures: Measure -> what it is.
    """
    title = f"{name}: worst first"
    sections = "".join(
        f"<section><h2>{html.escape(benchmark)}</h2>{_note(failures, counts[benchmark], measures)}"
        f'<div class="failures">{"".join(_figures(failures, measures))}</div></section>'
        for benchmark, failures in worst.items()
    )
    return (
        f"{page_head(title, STYLE)}<header><h1>{html.escape(title)}</h1></header>{_controls(worst, measures)}"
        f"<main>{sections}</main><script>{SCRIPT}</script></html>\n"
    )


def _note(failures: Sequence[Failure], count: int, measures: Mapping[str, Measure]) -> str:
    ranked = next(iter(failures[0].numbers), "") if failures else ""
    return f'<p class="note">The {len(failures)} worst of {count}, by {html.escape(_heading(ranked, measures))}.</p>'


def _controls(worst: Mapping[str, Sequence[Failure]], measures: Mapping[str, Measure]) -> str:
    """Hidden until the script runs, without which nothing answers."""
    names = dict.fromkeys(name for failures in worst.values() for each in failures for name in each.numbers)
    options = ""
    for name in names:
        value = html.escape(json.dumps([name, name in measures and measures[name].lower_is_better]))
        options += f'<option value="{value}">{html.escape(_heading(name, measures))}</option>'
    return (
        '<form class="controls" hidden><label>Show <input type="search" placeholder="name or words"></label>'
        f'<label>Sort by <select>{options}</select></label><label><input type="checkbox"> best first</label>'
        "<output></output></form>"
    )


def _figures(failures: Sequence[Failure], measures: Mapping[str, Measure]) -> list[str]:
    names = _short([each.image for each in failures])
    return [_figure(each, name, measures) for each, name in zip(failures, names, strict=True)]


def _figure(failure: Failure, name: str, measures: Mapping[str, Measure]) -> str:
    title = html.escape(name or failure.key)
    key = html.escape(failure.key) if name and PurePath(failure.key).stem != PurePath(name).stem else ""
    pictures = "".join(
        f'<div><img src="{address}" alt="{html.escape(shown)} of {title}"><small>{html.escape(shown)}</small></div>'
        for shown, address in failure.pictures.items()
    )
    numbers = "".join(
        f"<div><dt>{html.escape(_heading(measure, measures))}</dt><dd>{value:.3f}</dd></div>"
        for measure, value in failure.numbers.items()
    )
    words = "".join(
        f"<p><span>{html.escape(what)}:</span> {html.escape(text)}</p>" for what, text in failure.words.items() if text
    )
    return (
        f'<figure class="card failure" data-numbers="{html.escape(json.dumps(failure.numbers))}">'
        f'<div class="pictures">{pictures}</div><figcaption><h3>{title} <small>{key}</small></h3>'
        f"<dl>{numbers}</dl>{words}</figcaption></figure>"
    )


def _heading(name: str, measures: Mapping[str, Measure]) -> str:
    return measures[name].heading if name in measures else name.replace("_", " ")


def _short(files: Sequence[str]) -> list[str]:
    """Files from the folder on that all of them have in common: nobody else has the folders above."""
    paths = [PurePath(file) for file in files]
    folders = {str(path.parent) for path in paths if path.name}
    if len({PurePath(folder).is_absolute() for folder in folders}) != 1:
        return [path.name for path in paths]
    common = os.path.commonpath(folders)
    return [str(path.relative_to(common)) if path.name else "" for path in paths]
