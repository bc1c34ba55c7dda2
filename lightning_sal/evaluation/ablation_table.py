"""The tables and the plot of an ablation."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from lightning_sal.evaluation.ablation_runs import Arm, Compared, Result, scale_of
from lightning_sal.evaluation.comparison import heading_of, tasks_of, value_of
from lightning_sal.files.writing import whole
from lightning_sal.rewards import Correctness

Table = tuple[list[str], list[list[str]]]  # heads, rows

COSTS: dict[str, tuple[Callable[[Result], float | None], int]] = {  # Head -> of a run, digits
    "RL steps": (lambda run: len(run.curve), 0),
    "SFT steps": (lambda run: run.cost["sft_steps"], 0),
    "prompts": (lambda run: run.cost["prompts"], 0),
    "responses": (lambda run: run.cost["responses"], 0),
    "s an RL step": (lambda run: run.cost["rl_seconds"], 2),
    "s an SFT step": (lambda run: run.cost["sft_seconds"], 2),
    "peak GB": (lambda run: run.cost["memory"] / 1e9, 2),
    "minutes": (lambda run: run.cost["seconds"] / 60, 1),
}


def arm_rows(arms: Mapping[str, Arm]) -> Table:
    """What each arm reached and cost: means over seeds, what it reached with their standard error."""
    everything = [sample for arm in arms.values() for run in arm.values() for sample in run.samples]
    tasks = tasks_of(everything)
    terms = dict.fromkeys(term for sample in everything for term in sample.terms if term != Correctness.name)
    several = tasks if len(tasks) > 1 else []
    reached = {"exact": "exact %", **{f"exact/{task}": f"{task} exact %" for task in several}}
    reached |= {"correctness": "correctness" if several else heading_of(everything, tasks[0])}
    reached |= {f"correctness/{task}": f"{task} {heading_of(everything, task)}" for task in several}
    reached |= {"reward": "reward", **{f"reward/{term}": term for term in terms}, "confidence": "confidence"}
    means = {key: {arm: _means(runs, key) for arm, runs in arms.items()} for key in reached}
    shown = {key: of_arms for key, of_arms in means.items() if any(of_arms.values())}
    rows = []
    for arm, runs in arms.items():
        cells = [arm, str(len(runs))]
        cells += [_mean(of_arms[arm], 1 if scale_of(key) > 1 else 3) for key, of_arms in shown.items()]
        for of_run, digits in COSTS.values():
            values = [value for value in map(of_run, runs.values()) if value is not None]
            cells.append(f"{fmean(values):.{digits}f}" if values else "")
        rows.append(cells)
    return ["arm", "seeds", *(reached[key] for key in shown), *COSTS], rows


def comparison_rows(compared: Sequence[Compared]) -> Table:
    """Each comparison, with its error over seeds and scenes."""
    heads = ["arm", "against", "measure", "difference", "s.e.", "95 % interval", "p", "p Holm", "seeds", "scenes"]
    rows = []
    for each in compared:
        cells = [each.arm, each.reference, each.measure]
        if each.found is None or each.p_holm is None:
            rows.append([*cells, *[""] * (len(heads) - len(cells))])
            continue
        digits, found = (2 if scale_of(each.measure) > 1 else 4), each.found
        low, high = found.interval()
        cells += [f"{found.mean:+.{digits}f}", f"{found.se:.{digits}f}", f"{low:+.{digits}f} to {high:+.{digits}f}"]
        rows.append([*cells, f"{found.p:.2g}", f"{each.p_holm:.2g}", str(found.seeds), str(found.scenes)])
    return heads, rows


def markdown(table: Table, words: int = 1) -> str:
    """A table in Markdown, of which the first columns hold words."""
    heads, rows = table
    lines = [heads, [*["---"] * words, *["---:"] * (len(heads) - words)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_csv(table: Table, path: Path) -> None:
    """A table as CSV; one of an earlier call over fewer runs is replaced."""
    with whole(path) as part, part.open("w", newline="") as file:
        csv.writer(file).writerows([table[0], *table[1]])


def write_tables(arms: Table, comparisons: Table, notes: Sequence[str], folder: Path) -> None:
    """`table.md` with both tables and the notes, `table.csv`, `comparisons.csv`; those of an earlier call are replaced."""
    with whole(folder / "table.md") as part:
        part.write_text("\n".join([markdown(arms), markdown(comparisons, 3), *(f"- {note}" for note in notes)]) + "\n")
    write_csv(arms, folder / "table.csv")
    write_csv(comparisons, folder / "comparisons.csv")


def draw_curves(arms: Mapping[str, Arm], path: Path, window: int = 9) -> None:
    """Mean reward of sampled responses against wall time, one line a run, smoothed by a running mean of `window` steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    curves = {name: [run.curve for run in arm.values() if run.curve] for name, arm in arms.items()}
    for number, (name, of_arm) in enumerate((name, found) for name, found in curves.items() if found):
        for run, curve in enumerate(of_arm):
            reward = [line["reward"] for line in curve]
            smooth = [fmean(reward[max(0, at - window + 1) : at + 1]) for at in range(len(reward))]
            label = name if not run else None
            axes.plot([line["seconds"] for line in curve], smooth, color=f"C{number}", alpha=0.8, lw=1.3, label=label)
    axes.set_xlabel("wall time in seconds")
    axes.set_ylabel(f"mean reward of sampled responses, last {window} RL steps")
    if any(curves.values()):
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _means(runs: Arm, key: str) -> list[float]:
    """Of each run that has it the mean over its samples."""
    values = [[value for s in run.samples if (value := value_of(s, key)) is not None] for run in runs.values()]
    return [scale_of(key) * fmean(of_run) for of_run in values if of_run]


def _mean(values: Sequence[float], digits: int) -> str:
    """Mean over seeds and its standard error."""
    if not values:
        return ""
    error = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{error}"
