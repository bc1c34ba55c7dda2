"""What is going on, and how long it will take: one place at the end of the terminal, or lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from rich import get_console
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

LINE_EVERY = 10.0  # seconds, where there is no terminal

_T = TypeVar("_T")


class Activity:
    """Something that takes a while, shown from now on until it ends.

    On a terminal it is a row with a bar, the time it has taken and the time left; several stand below each other. Elsewhere
    it is a line, but not before 10 seconds have passed.

    Args:
        what: In words, such as "Loading the model".
        total: How many steps it has; None where that is not known.
        unit: What a step is called.
        done: Steps that were done before, by an earlier run that goes on.
        kept: Whether its row stays on the terminal when it ends.
        lines: Whether lines are printed where there is no terminal.
    """

    def __init__(
        self,
        what: str,
        total: float | None = None,
        unit: str = "",
        *,
        done: int = 0,
        kept: bool = False,
        lines: bool = True,
    ) -> None:
        self.what, self.total, self.unit, self.kept = what, total, unit, kept
        self._lines, self._first, self._done = lines, done, done
        self._started = self._said = time.monotonic()
        self._row = _screen().show(self) if on_terminal() else None
        self._ended = False

    def to(self, done: int, note: str = "") -> None:
        """Tell how many steps are done, and what else there is to say."""
        self._done = done
        if self._row is not None:
            _screen().update(self._row, completed=done, note=note)
        elif self._lines and time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            print(f"{self.what}: {self.count()}, {self.times()}", flush=True)

    def advance(self) -> None:
        """Tell that one more step is done."""
        self.to(self._done + 1)

    def end(self) -> None:
        """Take it off the terminal; a second time does nothing."""
        if not self._ended and self._row is not None:
            _screen().drop(self._row)
        self._ended = True

    def count(self) -> str:
        """Steps done and their number, such as "step 3/300"."""
        place = str(self._done) if self.total is None else f"{self._done}/{self.total:.0f}"
        return f"{self.unit} {place}".strip()

    def times(self) -> str:
        """The time that has passed, and the time left by the mean of the steps so far."""
        passed = time.monotonic() - self._started
        steps = self._done - self._first
        if self.total is None or self._done >= self.total:
            return _clock(passed)
        return f"{_clock(passed)}, {_clock(passed / steps * (self.total - self._done)) if steps else '-:--:--'} left"


@contextmanager
def doing(what: str, total: float | None = None, unit: str = "", *, kept: bool = False) -> Iterator[Activity]:
    """Inside, an `Activity` is shown."""
    activity = Activity(what, total, unit, kept=kept)
    try:
        yield activity
    finally:
        activity.end()


def followed(items: Iterable[_T], what: str, unit: str) -> Iterator[_T]:
    """The items, while an `Activity` shows how many were taken and dealt with; its row stays."""
    total = len(items) if hasattr(items, "__len__") else None  # type: ignore[arg-type]
    with doing(what, total, unit, kept=True) as activity:
        for item in items:
            yield item
            activity.advance()


def end_all() -> None:
    """End what is shown, of a command that was stopped in the midst of it."""
    _screen().clear()


def on_terminal() -> bool:
    """Whether there is a terminal, or a notebook, that can show a bar."""
    console = get_console()
    return console.is_jupyter or (console.file.isatty() and console.is_terminal and not console.is_dumb_terminal)


def output() -> Console:
    """Where tables and lines go that may come while an activity is shown; 120 columns where there is no terminal."""
    return get_console() if on_terminal() else Console(width=120)


class _Screen:
    """The rows of the activities, in one live display while there are any."""

    def __init__(self) -> None:
        self._progress: _Rows | None = None

    def show(self, activity: Activity) -> Any:
        if self._progress is None:
            self._progress = _Rows(
                SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<22}"), _Bar(None), _Count(), _Times(),
                console=get_console(), transient=True, refresh_per_second=4, redirect_stderr=sys.stderr.isatty(),
            )  # fmt: skip
            self._progress.start()
        return self._progress.add_task(activity.what, total=activity.total, completed=activity._done, activity=activity)

    def update(self, row: Any, **values: Any) -> None:
        if self._progress is not None:
            self._progress.update(row, **values)

    def drop(self, row: Any) -> None:
        progress = self._progress
        if progress is None:
            return
        task = next((task for task in progress.tasks if task.id == row), None)
        if task is None:  # cleared already
            return
        last = [*progress.rows([task])] if task.fields["activity"].kept else []
        progress.remove_task(row)
        if not progress.tasks:
            progress.stop()
            self._progress = None
        for part in last:
            progress.console.print(part)

    def clear(self) -> None:
        for task in [] if self._progress is None else self._progress.tasks:
            self.drop(task.id)


@cache
def _screen() -> _Screen:
    return _Screen()


class _Rows(Progress):
    def get_renderables(self) -> Iterable[RenderableType]:
        yield from self.rows(self.tasks)

    def rows(self, tasks: Iterable[Task]) -> Iterator[RenderableType]:
        """A line with the bar of each, and below it what else was said."""
        for task in tasks:
            yield self.make_tasks_table([task])
            if note := task.fields.get("note"):
                yield Text(f"  {note}", style="dim", no_wrap=True, overflow="ellipsis")


class _Bar(BarColumn):
    def render(self, task: Task) -> Any:
        return super().render(task) if task.total is not None else Text("")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        activity: Activity = task.fields["activity"]
        return Text("" if activity.total is None and not activity._done else activity.count())


class _Times(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["activity"].times(), style="dim")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
