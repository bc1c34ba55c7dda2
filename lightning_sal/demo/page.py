"""The page itself: what stands where."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lightning_sal.datasets.decoding import SUFFIXES
from lightning_sal.datasets.photographs import find_groups
from lightning_sal.demo.bounds import Bounds
from lightning_sal.demo.cards import strip
from lightning_sal.demo.clicks import Clicks
from lightning_sal.demo.uploads import check_uploads
from lightning_sal.demo.visitors import Visitors
from lightning_sal.segmenters.base import fits
from lightning_sal.tasks import TASKS, Task
from lightning_sal.tiny.notice import EXAMPLES

if TYPE_CHECKING:
    from lightning_sal.inference.base import BasePredictor

TITLE = "What stands out?"
INTRODUCTION = "Drop photographs: the model reasons about what catches the eye, names it, and draws its mask."
LONGEST_QUESTION = 500  # characters
CARDS = '<div class="cards">${value}</div>'
FORGET = (
    "() => ['', '', {__type__: 'update', interactive: false}]"  # in the browser, at once: what is shown is of others
)
CSS, JS = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))


def build(predictors: Mapping[str, BasePredictor], bounds: Bounds, visitors: Visitors, note: str = "") -> gr.Blocks:
    """The page, which answers one run after the other.

    Args:
        predictors: Name of a model as the page shows it -> the model; a column each.
        bounds: What is taken at most.
        visitors: Who has which files; the examples become everyone's, and an archive the visitor's it was made for.
        note: A sentence under the introduction, or none.
    """
    clicks = Clicks(predictors, bounds, visitors)
    tasks = _offered(predictors.values())
    examples = [(list(files), name) for name in tasks for files in _examples(name)]
    visitors.share(file for files, _ in examples for file in files)
    gr.set_static_paths([EXAMPLES])  # shown as they lie there, not copied among the uploads
    cards = [[strip(check_uploads(files, bounds)[0])] for files, _ in examples]
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_head(predictors, note), elem_id="head", apply_default_css=False)
        with gr.Row():
            photographs, pictures, example = _photographs(cards)
            task, question, explained, go, download = _controls(tasks, predictors)
        with gr.Column(elem_id="results"):
            answers = gr.HTML(elem_id="answers", html_template=CARDS, apply_default_css=False)
            current = gr.HTML(elem_id="current", html_template=CARDS, apply_default_css=False)
        page.load(js=JS.read_text(encoding="utf-8"), api_visibility="private")
        example.click(
            lambda number: examples[number],
            example,
            [photographs, task],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        photographs.change(
            clicks.check, photographs, [photographs, pictures], show_progress="hidden", api_visibility="private"
        )
        task.change(
            lambda name: gr.Textbox(visible=tasks[name].has_question),
            task,
            question,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        ran = go.click(
            clicks.run,
            [photographs, task, question, explained],
            [answers, current, download],
            show_progress_on=current,
            concurrency_limit=1,
            api_visibility="private",
        )
        for ended in (ran.then, ran.failure):  # what is half written goes where a run is cancelled, and where it fails
            ended(None, None, current, js="() => ''", show_progress_on=current, api_visibility="private")
        gr.on(
            [photographs.upload, photographs.delete, photographs.clear, example.click],
            outputs=[answers, current, download],
            js=FORGET,
            cancels=ran,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
    return page.queue(max_size=bounds.waiting)


def _photographs(cards: list[list[str]]) -> tuple[gr.File, gr.HTML, gr.Dataset]:
    """The column of what is answered: uploads, what they show, and examples."""
    with gr.Column(scale=3):
        photographs = gr.File(label="Photographs", file_count="multiple", file_types=sorted(SUFFIXES), height=212)
        pictures = gr.HTML(elem_id="pictures", apply_default_css=False)
        example = gr.Dataset(
            label="Or take an example",
            components=[gr.HTML(visible=False)],
            samples=cards,
            type="index",
            elem_id="examples",
        )
    return photographs, pictures, example


def _controls(
    tasks: Mapping[str, Task], predictors: Mapping[str, BasePredictor]
) -> tuple[gr.Radio, gr.Textbox, gr.Checkbox, gr.Button, gr.DownloadButton]:
    """The column of how it is answered: the task, its question if it has one, whether to explain, and the buttons."""
    first = next(iter(tasks))
    unexplained = [each.unexplained for each in predictors.values() if each.unexplained is not None]
    with gr.Column(scale=2):
        task = gr.Radio(
            [(f"{of.title[:1].upper()}{of.title[1:]}", name) for name, of in tasks.items()],
            value=first,
            label="Task",
            elem_id="task",
            info=_info(tasks.values()),
        )
        question = gr.Textbox(label="Question", max_length=LONGEST_QUESTION, visible=tasks[first].has_question)
        explained = gr.Checkbox(
            label="Where each word came from",
            info="Maps over the photographs; each answer takes longer.",
            visible=len(unexplained) < len(predictors),
        )
        for reason in dict.fromkeys(unexplained):
            gr.HTML(f'<p class="unexplained">{html.escape(reason)}.</p>', apply_default_css=False)
        go = gr.Button("Show what stands out", variant="primary")
        download = gr.DownloadButton("Download the masks", interactive=False)
    return task, question, explained, go, download


def _offered(predictors: Iterable[Any]) -> dict[str, Task]:
    """The tasks by name whose prompts the segmenter of each model takes.

    Raises:
        ValueError: There is none.
    """
    segmenters = [getattr(predictor, "segmenter", None) for predictor in predictors]
    offered = {name: task for name, task in TASKS.items() if all(fits(each, task.prompt_type) for each in segmenters)}
    if not offered:
        raise ValueError(f"the segmenter takes the prompts of none of the tasks {', '.join(TASKS)}: name another")
    return offered


def _info(tasks: Iterable[Task]) -> str:
    """Which tasks take all photographs together, where any does."""
    together = ", ".join(task.title for task in tasks if task.several)
    alone = "Each photograph is taken by itself"
    return f"{alone}, but for {together}: all of them as one group." if together else f"{alone}."


def _examples(task: str) -> list[tuple[str, ...]]:
    """The groups that the package ships for a task; none for a task of the user's own."""
    folder = EXAMPLES / task
    return find_groups([str(folder)], task) if folder.is_dir() else []


def _head(predictors: Mapping[str, BasePredictor], note: str) -> str:
    models = " beside ".join(f"<b>{html.escape(name)}</b>" for name in predictors)
    kind = "Model" if len(predictors) == 1 else "Models"
    told = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f'<h1>{TITLE}</h1><p>{INTRODUCTION}</p><p class="models">{kind}: {models}</p>{told}'
