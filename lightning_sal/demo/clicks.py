"""What happens when a visitor drops photographs, and when they ask for an answer."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import move
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.utils import get_upload_folder

from lightning_sal.demo.bounds import Bounds
from lightning_sal.demo.cards import finished, strip, unfinished
from lightning_sal.demo.side_by_side import Archive, stream
from lightning_sal.demo.uploads import check_uploads, read_groups
from lightning_sal.demo.visitors import Visitors, visitor_of
from lightning_sal.errors import UsageError, one_line, printable

if TYPE_CHECKING:
    from lightning_sal.inference.base import BasePredictor
    from lightning_sal.samples import ImageGroup


class Clicks:
    """The handlers of the page.

    Args:
        predictors: Name of a model as the page shows it -> the model; a column each.
        bounds: What is taken at most.
        visitors: Who has which files; an archive becomes the visitor's it was made for.
    """

    def __init__(self, predictors: Mapping[str, BasePredictor], bounds: Bounds, visitors: Visitors) -> None:
        self.predictors, self.bounds, self.visitors = predictors, bounds, visitors

    def check(self, paths: list[str] | None) -> tuple[Any, str]:
        """The photographs among what was dropped, and the strip that shows them; a warning for each other file."""
        pictures, reasons = check_uploads(paths or [], self.bounds)
        for reason in reasons:
            gr.Warning(html.escape(reason))
        return list(pictures) if reasons else gr.skip(), strip(pictures)

    def run(
        self, paths: list[str] | None, task: str, question: str | None, explained: bool, request: gr.Request
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Finished answers, the one that is being written, and the button of the download, whenever one of them changes."""
        visitor = visitor_of(dict(request.cookies))
        try:
            with TemporaryDirectory(dir=get_upload_folder()) as place:
                archive = Archive(Path(place), list(self.predictors))
                groups = read_groups(paths or [], task, self.bounds, question or "")
                yield from self._answers(groups, archive, visitor, explained)
        except ValueError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        except UsageError as error:  # of a model behind an endpoint, whose budget, say, is for the host to know
            print(f"lightning: {printable(str(error))}", file=sys.stderr, flush=True)
            raise gr.Error("The model cannot be asked any further; whoever runs this page reads why.") from error
        except RuntimeError as error:  # a GPU without memory, say
            raise gr.Error(html.escape(f"The model failed: {one_line(error)}")) from error

    def _answers(
        self, groups: Iterator[ImageGroup], archive: Archive, visitor: str | None, explained: bool
    ) -> Iterator[tuple[Any, Any, Any]]:
        shown = ""
        yield shown, "", gr.DownloadButton(interactive=False)
        for group in groups:
            for texts, predictions in stream(self.predictors, group, explained=explained):
                if predictions is None:
                    yield gr.skip(), unfinished(group, texts), gr.skip()
                else:
                    archive.add(predictions)
                    shown += finished(group, predictions)
                    yield shown, "", gr.skip()
        masks = move(archive.close(), mkdtemp(dir=get_upload_folder()))
        self.visitors.give(visitor, masks)
        yield gr.skip(), gr.skip(), gr.DownloadButton(value=masks, interactive=True)
