"""The whole runs of an ablation, as `lightning_sal.callbacks.RunRecord` wrote them, and the differences between arms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_sal.evaluation.ablation import Run
from lightning_sal.evaluation.comparison import Sample, read_arms, value_of
from lightning_sal.evaluation.crossed import Estimate, estimate, holm


@dataclass(frozen=True, slots=True)
class Result:
    """What a run achieved and cost.

    Args:
        samples: Its held-out samples.
        cost: `run.json`.
        curve: Lines of `curve.jsonl`, one an RL step.
    """

    samples: list[Sample]
    cost: dict[str, Any]
    curve: list[dict[str, float]]


Arm = Mapping[int, Result]  # seed -> its run


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison.

    Args:
        arm: Of the first of the pair.
        reference: Of the second.
        measure: As `value_of` names it.
        found: The difference, in points where the measure is a share of exactly right answers; None where the two have no
            seed or no samples in common.
        p_holm: Its p-value, corrected for all comparisons that are shown.
    """

    arm: str
    reference: str
    measure: str
    found: Estimate | None
    p_holm: float | None = None


def is_whole(run: Run) -> bool:
    """Whether a run came to its end: `run.json` is what it writes last."""
    return (run.folder / "run.json").is_file()


def read_result(folder: Path) -> Result:
    """A run from its folder."""
    samples = next(iter(read_arms(folder / "samples.jsonl").values()))
    lines = (folder / "curve.jsonl").read_text().splitlines()
    return Result(samples, json.loads((folder / "run.json").read_text()), [json.loads(line) for line in lines])


def read_runs(runs: Iterable[Run]) -> dict[str, dict[int, Result]]:
    """Arm -> its runs that are whole; an arm without one is missing."""
    arms: dict[str, dict[int, Result]] = {}
    for run in filter(is_whole, runs):
        arms.setdefault(run.arm, {})[run.seed] = read_result(run.folder)
    return arms


def measures_of(measures: Sequence[str], arms: Mapping[str, Arm]) -> tuple[str, ...]:
    """What arms are compared by: what was asked for, or exactly right answers where a task has such, or correctness."""
    samples = (sample for arm in arms.values() for result in arm.values() for sample in result.samples)
    return tuple(measures) or (("exact",) if any(s.exact is not None for s in samples) else ("correctness",))


def scale_of(measure: str) -> int:
    """100 for a share, which is told in points; 1 for what has a unit of its own."""
    return 100 if measure.partition("/")[0] == "exact" else 1


def differences(ours: Arm, theirs: Arm, measure: str) -> np.ndarray | None:
    """(S, I) differences over the seeds that both have, and the samples that have a value in each of their runs.

    None where they have no seed in common, other samples, or fewer than two with a value.
    """
    seeds = [seed for seed in ours if seed in theirs]
    pairs = [(ours[seed].samples, theirs[seed].samples) for seed in seeds]
    keys = {tuple(sample.key for sample in samples) for pair in pairs for samples in pair}
    if len(keys) != 1:
        return None
    values = np.array(
        [[[value_of(s, measure) for s in samples] for samples in pair] for pair in pairs], dtype=np.float64
    )
    found = values[:, :, ~np.isnan(values).any((0, 1))]
    return scale_of(measure) * (found[:, 0] - found[:, 1]) if found.shape[-1] > 1 else None


def compare(arms: Mapping[str, Arm], pairs: Sequence[tuple[str, str]], measures: Sequence[str]) -> list[Compared]:
    """Each pair by each measure, with p-values corrected for all of them together (Holm)."""
    found = []
    for measure in measures:
        for ours, theirs in pairs:
            table = differences(arms[ours], arms[theirs], measure) if {ours, theirs} <= arms.keys() else None
            found.append(Compared(ours, theirs, measure, None if table is None else estimate(table)))
    corrected = iter(holm([each.found.p for each in found if each.found]))
    return [
        Compared(each.arm, each.reference, each.measure, each.found, next(corrected) if each.found else None)
        for each in found
    ]
