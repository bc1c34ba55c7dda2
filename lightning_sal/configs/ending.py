"""The last lines of a command: where everything is that it has written, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_sal.internals.activity import output
from lightning_sal.internals.shell import typed
from lightning_sal.tasks import get_task

EXAMPLES = Path(__file__).parents[1] / "tiny" / "examples"  # a folder a task


def show_ending(trainer: L.Trainer, module: Any, options: Sequence[str], segmenter: str | None = None) -> None:
    """Print where the files of a run are and which commands come next, a line each, as they work from the current folder.

    Callbacks name theirs by a method `outputs() -> dict[str, Path]`, label -> path, asked once the run has ended.

    Args:
        trainer: After its run.
        module: What it ran.
        options: Those of the command line, after the command.
        segmenter: Where that of the run was loaded from; None for the embedded ones, or for one that has no such place.
    """
    if not trainer.is_global_zero:
        return
    command = trainer.state.fn
    lines = [*_measured(trainer)] if command in ("test", "validate") else []
    if lines:
        output().print(_table(lines))
    outputs = _outputs(trainer)
    checkpoint = _checkpoint(trainer) if command == "fit" else None
    if checkpoint is not None:
        outputs = {"Checkpoint": checkpoint, **outputs}
    elif command == "fit":
        _say("Checkpoint", "none was kept: add lightning.pytorch.callbacks.ModelCheckpoint to trainer.callbacks")
    for label, path in outputs.items():
        _say(label, _near(path))
    if command == "fit":
        for folder in dict.fromkeys(log.save_dir for log in trainer.loggers if isinstance(log, TensorBoardLogger)):
            _say("TensorBoard", typed("tensorboard", "--logdir", _near(Path(folder))))
    for what, words in _next(trainer, module, options, outputs, segmenter):
        _say(what, typed(*words))


def _next(
    trainer: L.Trainer, module: Any, options: Sequence[str], outputs: dict[str, Path], segmenter: str | None
) -> Iterator[tuple[str, tuple[object, ...]]]:
    """What each next command does, and the command."""
    if results := outputs.get("Results"):
        yield "Table", ("lightning-sal", "table", _near(results))
    if (checkpoint := outputs.get("Checkpoint")) is None:
        return
    tested = _tested(trainer.datamodule)  # type: ignore[attr-defined]
    if tested is not None:
        yield "Evaluate", ("lightning-sal", "test", *_without_checkpoint(options), "--ckpt_path", _near(checkpoint))
    if not hasattr(module, "policy_config"):  # no policy
        return
    model = _near(outputs.get("Adapter", checkpoint))
    images = _photographs(getattr(tested, "records", ())) or _others(trainer.datamodule)  # type: ignore[attr-defined]
    run = checkpoint.parents[1]
    if images is not None:
        words = (*images, "--model", model, *(("--segmenter", segmenter) if segmenter else ()), "--out")
        yield "Answer images", ("lightning-sal", "segment", *words, _near(run / "answers"))
    yield "Export", ("lightning-sal", "export", model, "--out", _near(run / "model"))


def _photographs(records: Sequence[Any]) -> tuple[str, ...]:
    """Photographs of some samples, and what is asked of them, as `segment` takes it: their folder, or those of one sample
    where it holds other images too; nothing where they are in no files."""
    if not records or any(photo.content for photo in records[0].photographs):
        return ()
    first, task = records[0], get_task(records[0].task)
    asked = ("--task", task.name, *(("--question", first.question) if task.has_question else ()))
    files = [photo.path for photo in first.photographs]
    folder = files[0].parent
    if task.has_question or len({path.stem for path in folder.iterdir()}) < len(list(folder.iterdir())):
        return *map(_near, files), *asked  # as where masks lie between photographs
    return _near(folder), *asked


def _others(data: Any) -> tuple[str, ...] | None:
    """What `segment` is told where no photographs are known: nothing after drawn scenes, of which the package has some, or
    None where it has none of the tasks; else a folder to fill in."""
    tasks = [get_task(name) for name in getattr(data, "known_tasks", ())]
    if getattr(data, "drawn", False):
        shipped = {path.name for path in EXAMPLES.iterdir()}
        return () if not tasks or any(task.name in shipped for task in tasks) else None
    asked = [word for task in tasks[:1] for word in ("--task", task.name)]
    return "FOLDER", *asked, *(("--question", "QUESTION") if tasks and tasks[0].has_question else ())


def _tested(data: Any) -> Any:
    """What a datamodule tests on: its dataset or, of those of others, anything; None where there is nothing."""
    if data is None:
        return None
    if not hasattr(data, "evaluation_dataset"):  # of others
        return data if is_overridden("test_dataloader", data) else None
    try:
        return data.evaluation_dataset("test")
    except (ValueError, OSError):
        return None


def _outputs(trainer: L.Trainer) -> dict[str, Path]:
    """What the callbacks have written; what several call alike is numbered."""
    found: dict[str, Path] = {}
    callback: Any
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for label, path in getattr(callback, "outputs", dict)().items():
            number = sum(known.partition(" (")[0] == label for known in found)
            found[f"{label} ({number + 1})" if number else label] = Path(path)
    return found


def _checkpoint(trainer: L.Trainer) -> Path | None:
    """The checkpoint of the last step, or else the best, of those that are there."""
    savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    paths = [Path(path) for saver in savers for path in (saver.last_model_path, saver.best_model_path) if path]
    return next((path for path in paths if path.exists()), None)


def _without_checkpoint(options: Sequence[str]) -> list[str]:
    """The options but `--ckpt_path`, which is that of the run before."""
    kept: list[str] = []
    words = iter(options)
    for word in words:
        if word == "--ckpt_path":
            next(words, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    return kept


def _measured(trainer: L.Trainer) -> Iterator[tuple[str, str, float]]:
    """(benchmark, metric, value) of what a test or validation has logged; no benchmark where the name has none."""
    for key, value in trainer.callback_metrics.items():
        _, _, name = key.partition("/")
        benchmark, _, metric = name.rpartition("/")
        yield benchmark, metric or key, float(value)


def _table(lines: Sequence[tuple[str, str, float]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD)
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _, _ in lines))
    values = {(benchmark, metric): value for benchmark, metric, value in lines}
    for benchmark in ("", *benchmarks):
        grid.add_column(benchmark, justify="right" if benchmark else "left")
    for metric in dict.fromkeys(metric for _, metric, _ in lines):
        cells = [values.get((benchmark, metric)) for benchmark in benchmarks]
        grid.add_row(metric, *("" if value is None else f"{value:.3f}" for value in cells))
    return grid


def _near(path: Path) -> str:
    """A path as it is shortest from the current folder."""
    whole = Path(path).absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def _say(label: str, text: str) -> None:
    print(f"{label + ':':<17} {text}")
