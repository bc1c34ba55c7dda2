"""train many arms from one start over several seeds, and write one table and one plot"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from lightning_sal.configs.places import find_config
from lightning_sal.errors import Terminated


def main(argv: list[str]) -> int:
    """Run what is not there yet, then write `table.md`, `table.csv` and `reward.png` into the folder of the ablation.

    Returns:
        0, or 1 where a run failed; its log is named, and the others go on.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-sal ablate",
        description="Each arm of the file is a `lightning fit` with options of its own, run once for each seed in a process "
        "of its own. A run that is whole is not run again, so a command that was stopped goes on. The table has means over "
        "seeds with standard errors, and what a step cost; the plot has reward against wall time.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="an ablation, such as conf/ablation/quick.yaml")
    parser.add_argument("--processes", type=int, metavar="N", help="runs at a time; by default as the file says")
    parser.add_argument("--table-only", action="store_true", help="run nothing: table and plot of what is there")
    arguments = parser.parse_args(argv)

    from rich.console import Console
    from rich.table import Table

    from lightning_sal.evaluation.ablation import draw_curves, read_ablation, read_arm, rows, write_table

    ablation = read_ablation(find_config(arguments.config))
    processes = arguments.processes or ablation.processes
    threads = max(1, (os.cpu_count() or 1) // processes)
    running: list[subprocess.Popen] = []

    def run(arm: str, seed: int) -> str | None:
        """Run one arm with one seed; the log where it failed."""
        folder = ablation.run_folder(arm, seed)
        if (folder / "run.json").is_file():
            print(f"{arm}, seed {seed}: done before", flush=True)
            return None
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "log.txt"
        with log.open("a") as file:
            command = [sys.executable, "-m", "lightning_sal", *ablation.command(arm, seed)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            running.append(process := subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment))
            code = process.wait()
        whole = not code and (folder / "run.json").is_file()
        print(f"{arm}, seed {seed}: {'done' if whole else f'failed, see {log}'}", flush=True)
        return None if whole else str(log)

    wanted = [(arm, seed) for seed in ablation.seeds for arm in ablation.arms]
    failed: list[str] = []
    if not arguments.table_only:
        with ThreadPoolExecutor(processes) as pool:
            try:
                failed = [log for log in pool.map(lambda job: run(*job), wanted) if log]
            except Terminated:  # which, other than Ctrl-C, has reached this process alone
                for process in running:
                    process.terminate()
                raise
    folders = {arm: [ablation.run_folder(arm, seed) for seed in ablation.seeds] for arm in ablation.arms}
    whole = {arm: [folder for folder in of_arm if (folder / "run.json").is_file()] for arm, of_arm in folders.items()}
    arms = {arm: read_arm(of_arm) for arm, of_arm in whole.items() if of_arm}
    if not arms:
        raise ValueError(f"{ablation.folder}: no run is whole yet, so there is no table")
    heads, table = rows(arms)
    write_table(heads, table, ablation.folder)
    draw_curves(arms, ablation.folder / "reward.png")
    grid = Table(title=f"{len(ablation.seeds)} seeds")
    for number, head in enumerate(heads):
        grid.add_column(head, justify="right" if number else "left")
    for line in table:
        grid.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 200).print(grid)
    for arm, of_arm in whole.items():
        if len(of_arm) < len(ablation.seeds):
            print(f"{arm}: {len(of_arm)} of {len(ablation.seeds)} runs are whole")
    print(f"Written: {ablation.folder / 'table.md'}, table.csv, reward.png")
    return 1 if failed else 0
