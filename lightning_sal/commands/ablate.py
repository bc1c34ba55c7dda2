"""train many arms from one start over several seeds at one budget, and write tables with tests and a plot"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.configs.places import find_config
from lightning_sal.errors import Terminated

if TYPE_CHECKING:
    from lightning_sal.evaluation.ablation import Ablation, Run
    from lightning_sal.evaluation.ablation_grid import Chosen

COMMAND = "command.txt"  # in the folder of a run: what was run there


def main(argv: list[str]) -> int:
    """Choose the options of each arm by the grid, run what is not there yet, then write tables and plot.

    Into the folder of the ablation go `grid.csv`, `chosen.yaml` and `power.md` before any arm is judged; then `table.md`,
    `table.csv`, `comparisons.csv` and `reward.png`.

    Returns:
        0, or 1 where a run failed; its log is named, and the others go on.
    """
    arguments = _parser().parse_args(argv)

    from lightning_sal.evaluation.ablation import read_ablation

    ablation = read_ablation(find_config(arguments.config))
    processes = arguments.processes or ablation.processes
    ablation.folder.mkdir(parents=True, exist_ok=True)
    if arguments.table_only:
        _report(_judged(ablation), ablation)
        return 0
    with _alone(ablation.folder):
        whole = not ablation.grid or _run_grid(ablation, processes)
        _state_power(ablation)
        if not arguments.grid_only:
            runs = _judged(ablation)
            whole = _run_all(runs, ablation, processes) and whole
            _report(runs, ablation)
    return 0 if whole else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal ablate",
        description="Each arm of the file is a `lightning fit` with options of its own, run once for each seed in a process "
        "of its own, until it has spent the budget. Where there is a grid, the options of each arm are chosen first, on "
        "seeds and scenes that it is not judged on. A run that is whole is not run again, so a command that was stopped "
        "goes on; one that is not whole is left out of the table and named. Differences between arms are paired over seeds "
        "and scenes, with intervals and p-values corrected for their number.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="an ablation, such as conf/ablation/quick.yaml")
    parser.add_argument("--processes", type=int, metavar="N", help="runs at a time; by default as the file says")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--grid-only", action="store_true", help="run the grid, choose, state the power; judge nothing yet"
    )
    only.add_argument("--table-only", action="store_true", help="run nothing: tables and plot of what is there")
    return parser


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, no other process runs the ablation of this folder: it would take the runs that are going on for dead ones."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another ablate runs there; wait for its end") from None
        yield


def _run_grid(ablation: Ablation, processes: int) -> bool:
    """Run the grid of the arms without chosen options, and choose; whether every arm has options now."""
    from lightning_sal.evaluation.ablation_grid import grid_rows, settle, write_chosen
    from lightning_sal.evaluation.ablation_runs import is_whole, read_result
    from lightning_sal.evaluation.ablation_table import write_csv

    before, runs = _chosen(ablation), ablation.grid_runs()
    known = before.arms if before else {}
    if known.keys() >= ablation.arms.keys():
        return True
    _run_all([run for run in runs if run.arm not in known], ablation, processes)
    results = [(run, read_result(run.folder)) for run in runs if is_whole(run)]
    write_csv(grid_rows(results), ablation.folder / "grid.csv")
    chosen = settle(ablation, results, known)
    write_chosen(chosen, ablation.folder / "chosen.yaml")
    lacking = [arm for arm in ablation.arms if arm not in chosen.arms]
    for arm in lacking:
        print(f"{arm}: no combination of the grid is whole, so it is left out", flush=True)
    return not lacking


def _state_power(ablation: Ablation) -> None:
    """Write and print once, before any arm is judged, what the judged runs will be able to tell."""
    from lightning_sal.evaluation.ablation_grid import power_text
    from lightning_sal.files.writing import whole

    chosen, path = _chosen(ablation), ablation.folder / "power.md"
    if chosen and not path.exists():
        with whole(path) as part:
            part.write_text(power_text(chosen, ablation))
        print(path.read_text(), flush=True)


def _chosen(ablation: Ablation) -> Chosen | None:
    """The options that were chosen: by the grid so far, or by an earlier one."""
    from lightning_sal.evaluation.ablation_grid import read_chosen

    own = ablation.folder / "chosen.yaml"
    if ablation.chosen:
        chosen = read_chosen(find_config(str(ablation.chosen)), ablation)
        if lacking := [arm for arm in ablation.arms if arm not in chosen.arms]:
            raise ValueError(f"{ablation.chosen}: no options are chosen for {', '.join(lacking)}")
        return chosen
    return read_chosen(own, ablation) if ablation.grid and own.exists() else None


def _judged(ablation: Ablation) -> list[Run]:
    """The runs that arms are judged on; an arm without options that were chosen has none."""
    chosen = _chosen(ablation)
    no_options: dict[str, Any] = {} if ablation.grid else {arm: {} for arm in ablation.arms}
    return ablation.judged_runs(chosen.arms if chosen else no_options)


def _run_all(runs: Sequence[Run], ablation: Ablation, processes: int) -> bool:
    """Run what is not whole yet, several at a time; whether all are whole now."""
    from lightning_sal.evaluation.ablation_runs import is_whole
    from lightning_sal.internals.activity import Activity

    commands = {run.folder: shlex.join(ablation.command(run)) for run in runs}
    done = [run for run in runs if is_whole(run)]
    for run in done:
        said = run.folder / COMMAND
        if said.exists() and said.read_text().strip() != commands[run.folder]:
            raise ValueError(f"{run.folder} holds a run with other options, see {COMMAND} there: name another folder")
    waiting = [run for run in runs if not is_whole(run)]
    running: list[subprocess.Popen] = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}

    def train(run: Run) -> bool:
        _set_aside(run.folder)
        run.folder.mkdir(parents=True)
        (run.folder / COMMAND).write_text(commands[run.folder] + "\n")
        with (log := run.folder / "log.txt").open("a") as file:
            command = [sys.executable, "-m", "lightning_sal", *ablation.command(run)]
            running.append(process := subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
            code = process.wait()
        whole = not code and is_whole(run)
        activity.advance()
        outcome = "done" if whole else f"failed, see {log}"
        print(f"{_name(run)}: {outcome} ({activity.count()}, {activity.times()})", flush=True)
        return whole

    for run in done:
        print(f"{_name(run)}: done before", flush=True)
    activity = Activity("Training", len(runs), "run", done=len(done), lines=False)
    with ThreadPoolExecutor(processes) as pool:
        try:
            return all(list(pool.map(train, waiting)))
        except Terminated:  # which, other than Ctrl-C, has reached this process alone
            for process in running:
                process.terminate()
            raise
        finally:
            activity.end()


def _set_aside(folder: Path) -> None:
    """Give what a run that died has left another name, with its log: it is run again from its beginning."""
    from lightning_sal.files.writing import numbered

    if folder.exists():
        places = map(folder.with_name, numbered(f"{folder.name}.died"))
        folder.rename(next(place for place in places if not place.exists()))


def _name(run: Run) -> str:
    from lightning_sal.evaluation.ablation import told

    return f"{run.arm}, seed {run.seed}" + (f", {told(run.settings)}" if run.settings else "")


def _report(runs: Sequence[Run], ablation: Ablation) -> None:
    """Write and print the tables of the runs that are whole, and draw their plot."""
    from lightning_sal.evaluation.ablation import told
    from lightning_sal.evaluation.ablation_runs import compare, is_whole, measures_of, read_runs
    from lightning_sal.evaluation.ablation_table import arm_rows, comparison_rows, draw_curves, write_tables

    found, chosen = read_runs(runs), _chosen(ablation)
    arms = {arm: found[arm] for arm in ablation.arms if arm in found}
    if not arms:
        raise ValueError(f"{ablation.folder}: no run is whole yet, so there is no table")
    compared = compare(arms, ablation.comparisons, measures_of(ablation.measures, arms))
    notes = [
        f"Measured on the scenes of {ablation.split}.",
        "Differences are paired over seeds and scenes, both random.",
    ]
    if any(each.found and each.found.seeds == 1 for each in compared):
        notes.append("Of a single seed the error is over scenes alone: it does not say how much other seeds differ.")
    if chosen:
        seeds = ", ".join(map(str, chosen.seeds))
        notes += [
            f"{arm}: {told(settings)}, chosen on seed {seeds}" for arm, settings in chosen.arms.items() if arm in arms
        ]
    notes += [f"{_name(run)}: left out, since it is not whole" for run in runs if not is_whole(run)]
    lacking = ablation.arms.keys() - {run.arm for run in runs}
    notes += [f"{arm}: left out, since no combination of the grid is whole" for arm in ablation.arms if arm in lacking]
    rows, differences = arm_rows(arms), comparison_rows(compared)
    write_tables(rows, differences, notes, ablation.folder)
    draw_curves(arms, ablation.folder / "reward.png")
    heads, table = rows
    _show(
        f"{len(ablation.seeds)} seeds", list(zip(heads, *table, strict=True))
    )  # an arm a column: there are fewer arms
    _show("Differences", [differences[0], *differences[1]])
    print("\n".join(notes))
    print(f"Written: {ablation.folder / 'table.md'}, table.csv, comparisons.csv, reward.png")


def _show(title: str, lines: Sequence[Sequence[str]]) -> None:
    """Print a table, of which the first line has the heads."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title)
    for number, head in enumerate(lines[0]):
        grid.add_column(head, justify="right" if number else "left")
    for line in lines[1:]:
        grid.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 200).print(grid)
