"""train many arms from one start over several seeds, and write one table and one plot"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.configs.places import find_config
from lightning_sal.errors import Terminated

if TYPE_CHECKING:
    from lightning_sal.evaluation.ablation import Ablation


def main(argv: list[str]) -> int:
    """Run what is not there yet, then write `table.md`, `table.csv` and `reward.png` into the folder of the ablation.

    Returns:
        0, or 1 where a run failed; its log is named, and the others go on.
    """
    arguments = _parser().parse_args(argv)

    from lightning_sal.evaluation.ablation import read_ablation

    ablation = read_ablation(find_config(arguments.config))
    whole = True if arguments.table_only else _run_all(ablation, arguments.processes or ablation.processes)
    _report(ablation)
    return 0 if whole else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal ablate",
        description="Each arm of the file is a `lightning fit` with options of its own, run once for each seed in a process "
        "of its own. A run that is whole is not run again, so a command that was stopped goes on. The table has means over "
        "seeds with standard errors, and what a step cost; the plot has reward against wall time.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="an ablation, such as conf/ablation/quick.yaml")
    parser.add_argument("--processes", type=int, metavar="N", help="runs at a time; by default as the file says")
    parser.add_argument("--table-only", action="store_true", help="run nothing: table and plot of what is there")
    return parser


def _run_all(ablation: Ablation, processes: int) -> bool:
    """Run each arm with each seed, several at a time; whether all are whole now."""
    running: list[subprocess.Popen] = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}

    def run(job: tuple[str, int]) -> bool:
        arm, seed = job
        folder = ablation.run_folder(arm, seed)
        if _is_whole(folder):
            print(f"{arm}, seed {seed}: done before", flush=True)
            return True
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log.txt"
        with log.open("a") as file:
            command = [sys.executable, "-m", "lightning_sal", *ablation.command(arm, seed)]
            running.append(process := subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
            code = process.wait()
        whole = not code and _is_whole(folder)
        print(f"{arm}, seed {seed}: {'done' if whole else f'failed, see {log}'}", flush=True)
        return whole

    with ThreadPoolExecutor(processes) as pool:
        try:
            return all(list(pool.map(run, [(arm, seed) for seed in ablation.seeds for arm in ablation.arms])))
        except Terminated:  # which, other than Ctrl-C, has reached this process alone
            for process in running:
                process.terminate()
            raise


def _report(ablation: Ablation) -> None:
    """Write and print the table of the runs that are whole, and draw their plot."""
    from rich.console import Console
    from rich.table import Table

    from lightning_sal.evaluation.ablation import draw_curves, read_arm, rows, write_table

    folders = {arm: [ablation.run_folder(arm, seed) for seed in ablation.seeds] for arm in ablation.arms}
    whole = {arm: list(filter(_is_whole, of_arm)) for arm, of_arm in folders.items()}
    arms = {arm: read_arm(of_arm) for arm, of_arm in whole.items() if of_arm}
    if not arms:
        raise ValueError(f"{ablation.folder}: no run is whole yet, so there is no table")
    heads, table = rows(arms)
    write_table(heads, table, ablation.folder)
    draw_curves(arms, ablation.folder / "reward.png")
    grid = Table(title=f"{len(ablation.seeds)} seeds")
    first, *others = zip(heads, *table, strict=True)  # an arm a column: there are more numbers than arms
    for number, head in enumerate(first):
        grid.add_column(head, justify="right" if number else "left")
    for line in others:
        grid.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 200).print(grid)
    for arm, of_arm in whole.items():
        if len(of_arm) < len(ablation.seeds):
            print(f"{arm}: {len(of_arm)} of {len(ablation.seeds)} runs are whole")
    print(f"Written: {ablation.folder / 'table.md'}, table.csv, reward.png")


def _is_whole(folder: Path) -> bool:
    return (folder / "run.json").is_file()
