"""compare trainings on the same held-out samples, over seeds, with paired standard errors"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Print the arms of one or more `samples.jsonl`, which `BeforeAfter` writes, and the paired differences."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal compare",
        description="Compare the arms of runs that lightning_sal.callbacks.BeforeAfter has recorded. Differences are "
        "taken sample by sample, averaged over the runs, and given with their standard error over samples.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="samples.jsonl of each run, one a seed")
    parser.add_argument(
        "--arm",
        metavar="NAME",
        help="the arm that the others are compared with; by default the last that is no control",
    )
    arguments = parser.parse_args(argv)

    from rich.console import Console

    from lightning_sal.evaluation.comparison import paired_difference, read_arms, table

    runs = [read_arms(path) for path in arguments.files]
    names = list(runs[0])
    keys = [sample.key for sample in runs[0][names[0]]]
    for path, run in zip(arguments.files, runs, strict=True):
        if list(run) != names or any([sample.key for sample in samples] != keys for samples in run.values()):
            raise ValueError(
                f"{path}: its arms or samples are not those of {arguments.files[0]}: compare like with like"
            )
    trained = [name for name in names if name != "start" and not name.startswith("SFT only")]
    ours = arguments.arm or (trained[-1] if trained else None)
    if ours not in names:
        raise ValueError(f"there is no arm {ours or 'but controls'}: give --arm one of {', '.join(names)}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    pooled = {name: [sample for run in runs for sample in run[name]] for name in names}
    console.print(table(pooled, f"{len(runs)} runs, {len(runs[0][ours])} held-out samples"))
    for other in (name for name in names if name != ours):
        for field, unit, scale, digits in (("exact", "points exact", 100, 1), ("correctness", "correctness", 1, 3)):
            scores = {
                arm: [[scale * float(getattr(sample, field)) for sample in run[arm]] for run in runs]
                for arm in (ours, other)
            }
            mean, error = paired_difference(*(_mean_over_runs(scores[arm]) for arm in (ours, other)))
            by_run = [paired_difference(a, b)[0] for a, b in zip(scores[ours], scores[other], strict=True)]
            size = f"{mean / error:.1f} standard errors" if error else "no spread"
            listed = ", ".join(f"{difference:+.{digits}f}" for difference in by_run)
            line = f"{ours} - {other}: {mean:+.{digits}f} ± {error:.{digits}f} {unit} ({size}; by run {listed})"
            console.print(line, soft_wrap=True, highlight=False)
    return 0


def _mean_over_runs(scores: list[list[float]]) -> list[float]:
    """Samples of a run repeat in the others: their mean over runs is one independent observation each."""
    return [sum(column) / len(column) for column in zip(*scores, strict=True)]
