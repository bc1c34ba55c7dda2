"""Trainings on the same held-out samples, as a figure and as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_sal.evaluation.comparison import Sample, paired_difference, values_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arms = Mapping[str, Sequence[Sample]]


def figure(arms: Arms) -> Figure:
    """A row a measure and in it a dot an arm: the mean over its samples, and one standard error to each side.

    Args:
        arms: Name -> the same samples in the same order, at least one.
    """
    from matplotlib.figure import Figure  # not by pyplot, which would keep every figure of a training

    values = {arm: values_of(samples) for arm, samples in arms.items()}
    names = list(dict.fromkeys(name for own in values.values() for name in own))
    whole = Figure(figsize=(8, 1.2 + 0.45 * len(names)), layout="constrained")
    axes = whole.subplots()
    for number, (arm, own) in enumerate(values.items()):
        shift = 0.6 * ((number + 0.5) / len(values) - 0.5)  # the first arm is the highest
        rows = [row + shift for row, name in enumerate(names) if name in own]
        means, errors = zip(*(_mean(own[name]) for name in names if name in own), strict=True)
        axes.errorbar(means, rows, xerr=errors, fmt="o", color=f"C{number}", label=arm, markersize=5, capsize=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    size = len(next(iter(arms.values())))
    axes.set_title(f"{size} held-out samples, greedy responses: mean and standard error", fontsize=10, loc="left")
    whole.legend(loc="outside lower center", ncols=2, frameon=False)
    return whole


def markdown(arms: Arms) -> str:
    """A row a measure and a column an arm; behind each but the first its paired difference to the first, with its error.

    Args:
        arms: As for `figure`.
    """
    values = {arm: values_of(samples) for arm, samples in arms.items()}
    first = next(iter(values.values()))
    lines = [["", *values], ["---", *("---:" for _ in values)]]
    for name, start in first.items():
        line = [name]
        for own in values.values():
            found = own.get(name, [])
            cell = f"{_mean(found)[0]:.3f}" if found else ""
            if own is not first and len(found) == len(start):
                difference, error = paired_difference(found, start)
                cell += f" ({difference:+.3f} ± {error:.3f})"
            line.append(cell)
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error s / sqrt(n)."""
    return paired_difference(values, [0.0] * len(values))
