"""Many runs from one start in one table: what each arm reached, and what it cost.

An arm is a set of choices, run once for each seed; a run is a folder that `lightning_sal.callbacks.RunRecord` wrote.
"""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning_sal.evaluation.comparison import Sample, heading_of, paired_difference, read_arms, summary, tasks_of
from lightning_sal.files.reading import parse_yaml, read_text
from lightning_sal.files.writing import whole
from lightning_sal.rewards import Correctness


@dataclass(frozen=True, slots=True)
class Ablation:
    """What an ablation file says.

    Args:
        folder: Where the runs and the table go.
        fit: Config file that all arms begin with.
        arms: Name of an arm -> the options of `lightning fit` that make it.
        seeds: Seeds of data, sampling and adapters; every arm is run with each.
        processes: Runs at a time, which share the cores.
    """

    folder: Path
    fit: str
    arms: dict[str, list[str]]
    seeds: tuple[int, ...]
    processes: int = 1

    def run_folder(self, arm: str, seed: int) -> Path:
        """The folder of one run."""
        return self.folder / arm.replace(" ", "_").replace("/", "_") / f"seed_{seed}"

    def command(self, arm: str, seed: int) -> list[str]:
        """The words of `lightning` that make one run."""
        seeds = [f"--{key}={seed}" for key in ("seed_everything", "data.init_args.seed", "model.init_args.seed")]
        root = f"--trainer.default_root_dir={self.run_folder(arm, seed)}"
        return ["fit", "--config", self.fit, *self.arms[arm], *seeds, root]


def read_ablation(path: Path) -> Ablation:
    """An ablation file: YAML with folder, fit, arms, seeds and, where wanted, processes.

    Raises:
        ValueError: If it is no YAML, a key is missing or unknown, or holds another kind of value.
    """
    given = parse_yaml(read_text(path), path)
    needed, known = {"folder", "fit", "arms", "seeds"}, {"folder", "fit", "arms", "seeds", "processes"}
    if not isinstance(given, dict) or not needed <= set(given) <= known:
        found = ", ".join(map(str, given)) if isinstance(given, dict) else "no keys"
        raise ValueError(f"{path}: an ablation has {', '.join(sorted(needed))} and may have processes, not {found}")
    arms, seeds = given["arms"], given["seeds"]
    if not isinstance(arms, dict) or not all(isinstance(text, str) for text in (*arms, *arms.values())):
        raise ValueError(f"{path}: arms are names, each with the options of `lightning fit` as one text")
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise ValueError(f"{path}: seeds are a list of whole numbers")
    arms = {name: shlex.split(options) for name, options in arms.items()}
    return Ablation(Path(given["folder"]), given["fit"], arms, tuple(seeds), given.get("processes", 1))


@dataclass(frozen=True, slots=True)
class Arm:
    """The runs of an arm, one a seed.

    Args:
        samples: Held-out samples of each run.
        costs: `run.json` of each run.
        curves: Lines of `curve.jsonl` of each run.
    """

    samples: list[list[Sample]]
    costs: list[dict[str, Any]]
    curves: list[list[dict[str, float]]]


def read_arm(folders: Sequence[Path]) -> Arm:
    """The runs of an arm from their folders."""
    samples = [next(iter(read_arms(folder / "samples.jsonl").values())) for folder in folders]
    costs = [json.loads((folder / "run.json").read_text()) for folder in folders]
    lines = [(folder / "curve.jsonl").read_text().splitlines() for folder in folders]
    return Arm(samples, costs, [[json.loads(line) for line in of_run] for of_run in lines])


def rows(arms: Mapping[str, Arm]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table; the first arm is what the others are compared with.

    Values are means over seeds with their standard error. A difference, of what is to its left, is paired over the held-out
    samples, each averaged over seeds first, and left out where an arm has other samples than the first.
    """
    everything = [sample for arm in arms.values() for run in arm.samples for sample in run]
    tasks = tasks_of(everything)
    exact = [task for task in tasks if any(s.exact is not None for s in everything if s.task == task)]
    heads = ["arm", *(["exact %", "difference"] if exact else []), *(f"{task} exact %" for task in exact)]
    heads += [head for task in tasks for head in (f"{task} {heading_of(everything, task)}", "difference")]
    heads += ["reward"]
    terms = [term for term in dict.fromkeys(t for s in everything for t in s.terms) if term != Correctness.name]
    heads += [head for term in terms for head in (term, "difference")]
    heads += ["s an RL step", "s an SFT step", "peak GB", "responses a prompt", "minutes"]
    first = next(iter(arms.values()))
    table = []
    for name, arm in arms.items():
        means = [summary(samples) for samples in arm.samples]
        by_task = [{task: [s for s in run if s.task == task] for task in tasks} for run in arm.samples]
        cells = [name]
        if exact:
            cells += [_mean([100 * m["exact"] for m in means if "exact" in m], 1), _difference(arm, first, _exact)]
        cells += [_mean([100 * m[f"exact/{t}"] for m in means if f"exact/{t}" in m], 1) for t in exact]
        for task in tasks:
            cells += [_mean([fmean(s.correctness for s in run[task]) for run in by_task if run[task]], 3)]
            cells += [_difference(arm, first, lambda s, task=task: s.correctness if s.task == task else None, 3)]
        cells += [_mean([m["reward"] for m in means], 3)]
        for term in terms:
            cells += [_mean([m[f"reward/{term}"] for m in means if f"reward/{term}" in m], 3)]
            cells += [_difference(arm, first, lambda sample, term=term: sample.terms.get(term), 3)]
        for key, scale, digits in (
            ("rl_seconds", 1, 2),
            ("sft_seconds", 1, 2),
            ("memory", 1e-9, 2),
            ("responses", 1, 1),
        ):
            values = [scale * cost[key] for cost in arm.costs if cost[key] is not None]
            cells.append(f"{fmean(values):.{digits}f}" if values else "")
        cells.append(f"{fmean(cost['seconds'] for cost in arm.costs) / 60:.1f}")
        table.append(cells)
    return heads, table


def markdown(heads: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *table]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_table(heads: Sequence[str], table: Sequence[Sequence[str]], folder: Path) -> None:
    """`table.md` and `table.csv`; those of an earlier call over fewer runs are replaced."""
    with whole(folder / "table.md") as part:
        part.write_text(markdown(heads, table))
    with whole(folder / "table.csv") as part, part.open("w", newline="") as file:
        csv.writer(file).writerows([heads, *table])


def draw_curves(arms: Mapping[str, Arm], path: Path, window: int = 9) -> None:
    """Mean reward of sampled responses against wall time, one line a run, smoothed by a running mean of `window` steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, arm) in enumerate((n, a) for n, a in arms.items() if any(a.curves)):
        for run, curve in enumerate(arm.curves):
            reward = [line["reward"] for line in curve]
            smooth = [fmean(reward[max(0, at - window + 1) : at + 1]) for at in range(len(reward))]
            label = name if not run else None
            axes.plot([line["seconds"] for line in curve], smooth, color=f"C{number}", alpha=0.8, lw=1.3, label=label)
    axes.set_xlabel("wall time in seconds")
    axes.set_ylabel(f"mean reward of sampled responses, last {window} RL steps")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _mean(values: Sequence[float], digits: int) -> str:
    """Mean over seeds and its standard error."""
    if not values:
        return ""
    error = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{error}"


def _exact(sample: Sample) -> float | None:
    """100 for an answer that is exactly the annotated one, 0 for another."""
    return None if sample.exact is None else 100 * float(sample.exact)


def _difference(arm: Arm, first: Arm, of: Callable[[Sample], float | None], digits: int = 1) -> str:
    """Mean difference to the first arm, paired over the held-out samples, each averaged over seeds first, and its error."""
    keys = [[sample.key for sample in run] for run in (*arm.samples, *first.samples)]
    if arm is first or any(each != keys[0] for each in keys):
        return ""
    columns = [
        [[of(sample) for sample in column] for column in zip(*each.samples, strict=True)] for each in (arm, first)
    ]
    whole = [
        pair for pair in zip(*columns, strict=True) if all(value is not None for column in pair for value in column)
    ]
    if not whole:
        return ""
    ours, theirs = ([fmean(column) for column in side] for side in zip(*whole, strict=True))
    mean, error = paired_difference(ours, theirs)
    return f"{mean:+.{digits}f} ± {error:.{digits}f}"
