"""What scoring the files of one method on one benchmark takes and gives, whatever kind of predictions they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_sal.errors import UsageError
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.tasks import Task

Show = Callable[[Iterable[Any]], Iterable[Any]]  # shows how far it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for.

    Args:
        convention: How maps are measured: fields of `lightning_sal.maps.conventions.Convention`, of which `name` says where
            the others come from; empty for the default.
        metrics: `usual`, or `all`: also those that take a while, or that few papers report.
        weighted_f: Whether the weighted F-measure of maps is wanted too.
        skip_missing: Whether images without prediction, and predictions without image, are left out instead of refused.
        resize: `bilinear`, or `refuse`: what becomes of maps of another size than their ground truth.
        workers: Processes that measure; 0 for this one.
    """

    convention: Mapping[str, Any] = field(default_factory=dict)
    metrics: str = "usual"
    weighted_f: bool = False
    skip_missing: bool = False
    resize: str = "bilinear"
    workers: int = 0

    def refuse_those_of_maps(self, task: Task) -> None:
        """Refuse what only saliency maps can be asked for.

        Raises:
            UsageError: Any of it is asked for.
        """
        asked = {
            "a convention": self.convention,
            "--weighted-f": self.weighted_f,
            "--resize refuse": self.resize != "bilinear",
            "--workers": self.workers,
        }
        if found := [name for name, value in asked.items() if value]:
            raise UsageError(f"{found[0]} is for saliency maps, and {task.name} has none: leave it out")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out.

    Args:
        metrics: Measure -> value over the benchmark.
        settings: How it was measured and what was left out, for the results.
        curves: Name of a curve -> its points; empty where there are none.
    """

    metrics: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """Predictions that were found for a benchmark.

    Args:
        count: How many there are.
        what: Of what, in words.
        run: Measures them; a row for each goes to the writer.
        notes: What is to be known of how they were found, a line each.
    """

    count: int
    what: str
    run: Callable[[ResultsWriter, Show], Outcome]
    notes: tuple[str, ...] = ()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch works on one thread: images are small, and several threads wait for each other on busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(preds: Path, truth: Path, task: Task, benchmark: str, options: Options) -> Job:
    """Find the predictions of a benchmark.

    Args:
        preds: What the task's module of scoring takes.
        truth: The benchmark, as distributed; where it holds splits, the test split is taken.
        task: Its task.
        benchmark: Its name.
        options: What was asked for.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The task has nothing that files can hold, or predictions and images do not fit; they are named.
    """
    if not task.scoring:
        raise ValueError(f"the task {task.name} has no masks to score: use `lightning test`")
    return import_module(task.scoring).prepare(preds, truth, task, benchmark, options)
