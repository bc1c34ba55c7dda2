"""The grid of an ablation: what each combination reached, which is chosen, and what the judged runs will be able to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning_sal.evaluation.ablation import Ablation, Run, Settings, told
from lightning_sal.evaluation.ablation_runs import Result, compare, measures_of, scale_of
from lightning_sal.evaluation.comparison import summary
from lightning_sal.evaluation.crossed import Components, detectable, pooled
from lightning_sal.files.reading import parse_yaml, read_text
from lightning_sal.files.writing import whole

BETWEEN_SEEDS = (0.0, 0.01, 0.02, 0.04)
HEAD = """\
# The best combination of a grid for each arm, by its mean share of exactly right answers on these seeds and the scenes of
# val; and the variance of the differences between arms there, of which power.md is made.
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a grid has chosen.

    Args:
        seeds: That it was chosen on.
        arms: Arm -> options.
        measure: Of the variance, as `lightning_sal.evaluation.comparison.value_of` names it.
        scenes: That it was chosen on, their number.
        variance: Of a difference between arms; None where none could be compared.
    """

    seeds: tuple[int, ...]
    arms: dict[str, dict[str, Any]]
    measure: str
    scenes: int
    variance: Components | None


def grid_rows(results: Sequence[tuple[Run, Result]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of `grid.csv`: what each run of the grid reached."""
    heads = ["arm", "options", "seed", "exact %", "correctness", "seconds"]
    rows = []
    for run, result in results:
        means = summary(result.samples)
        exact = f"{100 * means['exact']:.2f}" if "exact" in means else ""
        seconds = f"{result.cost['seconds']:.0f}"
        rows.append([run.arm, told(run.settings), str(run.seed), exact, f"{means['correctness']:.4f}", seconds])
    return heads, rows


def choose(results: Sequence[tuple[Run, Result]], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The best combination of each arm.

    It has the highest share of exactly right answers, in the mean over seeds; where that is equal, or no task has it, the
    highest correctness; where that is equal too, it is the first. A combination that lacks a seed is not chosen; an arm
    without a whole combination is missing.
    """
    found: dict[str, dict[str, list[tuple[Run, Result]]]] = {}
    for run, result in results:
        found.setdefault(run.arm, {}).setdefault(told(run.settings), []).append((run, result))
    chosen: dict[str, dict[str, Any]] = {}
    for arm, combinations in found.items():
        whole_ones = [runs for runs in combinations.values() if {run.seed for run, _ in runs} == set(seeds)]
        if whole_ones:
            chosen[arm] = dict(max(whole_ones, key=_score)[0][0].settings)
    return chosen


def _score(runs: Sequence[tuple[Run, Result]]) -> tuple[float, float]:
    means = [summary(result.samples) for _, result in runs]
    return fmean(each.get("exact", 0.0) for each in means), fmean(each["correctness"] for each in means)


def settle(ablation: Ablation, results: Sequence[tuple[Run, Result]], before: Mapping[str, Settings]) -> Chosen:
    """What the grid of an ablation has chosen.

    Args:
        ablation: Whose grid it is.
        results: The runs of the grid that are whole.
        before: Arm -> options that were chosen before, which stay: there may be runs with them.
    """
    arms = choose(results, ablation.grid_seeds) | {arm: dict(settings) for arm, settings in before.items()}
    best: dict[str, dict[int, Result]] = {}
    for run, result in results:
        if run.settings == arms.get(run.arm):
            best.setdefault(run.arm, {})[run.seed] = result
    measure = measures_of(ablation.measures, best)[0]
    found = [each.found for each in compare(best, ablation.comparisons, [measure]) if each.found]
    scenes = max((each.scenes for each in found), default=0)
    return Chosen(ablation.grid_seeds, arms, measure, scenes, pooled(found) if found else None)


def write_chosen(chosen: Chosen, path: Path) -> None:
    """A file that `read_chosen` reads."""
    import yaml

    values = asdict(chosen) | {"seeds": list(chosen.seeds)}
    with whole(path) as part:
        part.write_text(HEAD + yaml.safe_dump(values, sort_keys=False, width=120))


def read_chosen(path: Path, ablation: Ablation) -> Chosen:
    """What an earlier grid has chosen.

    Raises:
        ValueError: If the file is another kind of file, or was chosen on a seed that an arm is judged on.
    """
    given = parse_yaml(read_text(path), path)
    try:
        variance = Components(**given["variance"]) if given["variance"] else None
        chosen = Chosen(tuple(given["seeds"]), dict(given["arms"]), given["measure"], given["scenes"], variance)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not the choice of a grid, as `lightning-sal ablate` writes it: {error}") from None
    if common := set(chosen.seeds) & set(ablation.seeds):
        raise ValueError(f"{path}: chosen on seed {min(common)}, which arms are judged on: give other seeds")
    return chosen


def power_text(chosen: Chosen, ablation: Ablation) -> str:
    """What the judged runs will be able to tell, in Markdown; stated before there are any."""
    seeds, scenes = len(ablation.seeds), chosen.scenes
    count = len(ablation.comparisons) * max(1, len(ablation.measures))
    variance, scale = chosen.variance, scale_of(chosen.measure)
    if variance is None or seeds < 1:
        return "# Power\n\nThe grid compared no two arms, so nothing can be said of it.\n"
    between: dict[str, float] = {f"{scale * sd:g}": (scale * sd) ** 2 for sd in BETWEEN_SEEDS}
    if variance.seed is not None:
        between = {f"{variance.seed**0.5:.2g}, as measured": variance.seed} | between
    points = " in points" if scale > 1 else ""
    own = ", ".join(map(str, chosen.seeds))
    lines = [
        "# Power, stated before the judged runs\n",
        f"The smallest true difference of {chosen.measure}{points} that a comparison finds with 80 % probability, over",
        f"{seeds} seeds and {scenes} scenes, as many as the grid's: more find smaller ones. At level 0.05, and at",
        f"0.05 / {count}, the strictest step of Holm's correction.\n",
        f"Standard deviation of a difference in the grid (seed {own}), pooled over the comparisons:",
    ]
    if variance.seed is not None:
        lines.append(f"{variance.scene**0.5:.3g} between scenes, {variance.rest**0.5:.3g} of the rest,")
        lines.append(f"{variance.seed**0.5:.3g} between seeds.\n")
        cases = {"": variance}
    else:  # the mean over seeds lessens the rest, and not what is the same in every run of a scene
        total = variance.scene + variance.rest
        lines.append(
            f"{total**0.5:.3g} over scenes. One seed cannot tell how much of it all seeds of a scene have alike:"
        )
        lines.append("all of it, none, or a part.\n")
        cases = {", all alike": Components(None, total, 0.0), ", none alike": Components(None, 0.0, total)}
    lines.append("| s.d. between seeds | level 0.05 | corrected |\n|---|---:|---:|")
    for (name, seed), (case, parts) in product(between.items(), cases.items()):
        expected = Components(seed, parts.scene, parts.rest)
        found = [detectable(expected, seeds, scenes, level=level) for level in (0.05, 0.05 / max(1, count))]
        lines.append(f"| {name}{case} | {found[0]:.3g} | {found[1]:.3g} |")
    return "\n".join(lines) + "\n"
