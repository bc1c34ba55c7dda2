"""The page itself: what stands where, and what happens on a click."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shutil import move
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder

from lightning_sal.datasets.decoding import SUFFIXES
from lightning_sal.datasets.photographs import find_groups
from lightning_sal.demo.cards import finished, strip, unfinished
from lightning_sal.demo.side_by_side import Archive, stream
from lightning_sal.demo.uploads import Bounds, check_uploads, read_groups
from lightning_sal.demo.visitors import Visitors, visitor_of
from lightning_sal.segmenters.base import fits
from lightning_sal.tasks import TASKS, Task

if TYPE_CHECKING:
    from lightning_sal.inference.predictor import Predictor
    from lightning_sal.samples import ImageGroup

TITLE = "What stands out?"
INTRODUCTION = "Drop photographs: the model reasons about what catches the eye, names it, and draws its mask."
KNOWS_SCENES = (
    "The embedded model knows scenes of coloured shapes alone and is wrong on photographs: take an example, or start the "
    "page with a model of your own."
)
EXAMPLES = Path(__file__).parents[1] / "tiny" / "examples"
CARDS = '<div class="cards">${value}</div>'
CSS = Path(__file__).with_name("page.css")


def build(predictors: Mapping[str, Predictor], bounds: Bounds, visitors: Visitors, note: str = "") -> gr.Blocks:
    """The page, which answers one run after the other.

    Args:
        predictors: Name of a model as the page shows it -> the model; a column each.
        bounds: What is taken at most.
        visitors: Who has which files; the examples become everyone's, and an archive the visitor's it was made for.
        note: A sentence under the introduction, or none.
    """

    def check(paths: list[str] | None) -> tuple[Any, str]:
        pictures, reasons = check_uploads(paths or [], bounds)
        for reason in reasons:
            gr.Warning(html.escape(reason))
        return list(pictures) if reasons else gr.skip(), strip(pictures)

    def run(paths: list[str] | None, task: str, request: gr.Request) -> Iterator[tuple[Any, Any, Any]]:
        visitor = visitor_of(dict(request.cookies))
        try:
            with TemporaryDirectory(dir=get_upload_folder()) as place:
                archive = Archive(Path(place), list(predictors))
                yield from answer(read_groups(paths or [], task, bounds), archive, visitor)
        except ValueError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    def answer(groups: Iterator[ImageGroup], archive: Archive, visitor: str | None) -> Iterator[tuple[Any, Any, Any]]:
        shown = ""
        yield shown, "", gr.DownloadButton(interactive=False)
        for group in groups:
            for texts, predictions in stream(predictors, group):
                if predictions is None:
                    yield gr.skip(), unfinished(group, texts), gr.skip()
                else:
                    archive.add(predictions)
                    shown += finished(group, predictions)
                    yield shown, "", gr.skip()
        masks = move(archive.close(), mkdtemp(dir=get_upload_folder()))
        visitors.give(visitor, masks)
        yield gr.skip(), gr.skip(), gr.DownloadButton(value=masks, interactive=True)

    tasks = _offered(predictors.values())
    examples = [(list(files), name) for name in tasks for files in _examples(name)]
    visitors.share(file for files, _ in examples for file in files)
    gr.set_static_paths([EXAMPLES])  # shown as they lie there, not copied among the uploads
    cards = [[strip(check_uploads(files, bounds)[0])] for files, _ in examples]
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_head(predictors, note), elem_id="head", apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=3):
                photographs = gr.File(
                    label="Photographs", file_count="multiple", file_types=sorted(SUFFIXES), height=212
                )
                pictures = gr.HTML(elem_id="pictures", apply_default_css=False)
                example = gr.Dataset(
                    label="Or take an example",
                    components=[gr.HTML(visible=False)],
                    samples=cards,
                    type="index",
                    elem_id="examples",
                )
            with gr.Column(scale=2):
                task = gr.Radio(
                    [(f"{of.title[:1].upper()}{of.title[1:]}", name) for name, of in tasks.items()],
                    value=next(iter(tasks)),
                    label="Task",
                    info=_info(tasks.values()),
                )
                go = gr.Button("Show what stands out", variant="primary")
                download = gr.DownloadButton("Download the masks", interactive=False)
        answers = gr.HTML(elem_id="answers", html_template=CARDS, apply_default_css=False)
        current = gr.HTML(elem_id="current", html_template=CARDS, apply_default_css=False)
        example.click(
            lambda number: examples[number],
            example,
            [photographs, task],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        photographs.change(
            check, photographs, [photographs, pictures], show_progress="hidden", api_visibility="private"
        )
        go.click(
            run, [photographs, task], [answers, current, download], show_progress_on=current, concurrency_limit=1,
            api_visibility="private",
        )  # fmt: skip
    return page.queue(max_size=bounds.waiting)


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


def _head(predictors: Mapping[str, Predictor], note: str) -> str:
    models = " beside ".join(f"<b>{html.escape(name)}</b>" for name in predictors)
    kind = "Model" if len(predictors) == 1 else "Models"
    told = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f'<h1>{TITLE}</h1><p>{INTRODUCTION}</p><p class="models">{kind}: {models}</p>{told}'
