"""An ablation: many trainings from one start, at one budget; what its file says, and the command of each run.

An arm is a set of choices. Where there is a grid, the options of each arm are chosen first, on seeds and scenes that no arm
is judged on.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from lightning_sal.files.reading import parse_yaml, read_text
from lightning_sal.internals.parser import plain_key

NEEDED = ("folder", "fit", "arms", "seeds")
OPTIONAL = ("processes", "budget", "grid", "grid_seeds", "chosen", "comparisons", "measures")
UNITS = ("prompts", "responses", "seconds")
MEASURES = ("exact", "correctness", "reward", "confidence")
JUDGED, CHOSEN_ON = "test", "val"

Settings = Mapping[str, Any]  # option of `lightning fit` -> value


@dataclass(frozen=True, slots=True)
class Choices:
    """What makes an arm.

    Args:
        options: Words of `lightning fit`.
        without: Options of the grid that it has not.
    """

    options: tuple[str, ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Args:
        arm: Its arm.
        seed: Of data, sampling and adapters.
        settings: Options of the grid.
        split: The held-out samples that it is measured on.
        folder: Where it goes.
    """

    arm: str
    seed: int
    settings: Settings
    split: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Ablation:
    """What an ablation file says.

    Args:
        folder: Where the runs and the tables go.
        fit: Config file that all arms begin with.
        arms: Name of an arm -> what makes it.
        seeds: Every arm is judged on runs with each.
        processes: Runs at a time, which share the cores.
        budget: Unit (prompts, responses or seconds) -> how many of it a run spends; empty where the config says how long.
        grid: Option of `lightning fit` -> values to try; of each arm every combination is run.
        grid_seeds: Seeds of the grid; none of `seeds`.
        chosen: File with the options that an earlier grid has chosen, in place of a grid.
        comparisons: Pairs of arms (arm, reference) that are compared.
        measures: What they are compared by, as `lightning_sal.evaluation.comparison.value_of` names it; empty for exactly
            right answers, or correctness where no task has such.
    """

    folder: Path
    fit: str
    arms: dict[str, Choices]
    seeds: tuple[int, ...]
    processes: int = 1
    budget: dict[str, float] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    grid_seeds: tuple[int, ...] = ()
    chosen: Path | None = None
    comparisons: tuple[tuple[str, str], ...] = ()
    measures: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """What the arms are judged on: test where the scenes of val have chosen options, else val."""
        return JUDGED if self.grid or self.chosen else CHOSEN_ON

    def grid_runs(self) -> list[Run]:
        """Each arm with each combination of the grid that it has, and each seed of the grid."""
        return [
            Run(arm, seed, settings, CHOSEN_ON, self._folder("grid", arm, told(settings), f"seed_{seed}"))
            for seed in self.grid_seeds
            for arm, choices in self.arms.items()
            for settings in _combinations(self.grid, choices.without)
        ]

    def judged_runs(self, settings: Mapping[str, Settings]) -> list[Run]:
        """Each arm with each seed.

        Args:
            settings: Arm -> the options that were chosen for it; an arm that is missing has no runs.
        """
        return [
            Run(arm, seed, settings[arm], self.split, self._folder(arm, f"seed_{seed}"))
            for seed in self.seeds
            for arm in self.arms
            if arm in settings
        ]

    def command(self, run: Run) -> list[str]:
        """The words of `lightning` that make a run."""
        options = [f"--{option}={json.dumps(value)}" for option, value in run.settings.items()]
        seeds = [f"--{key}={run.seed}" for key in ("seed_everything", "data.init_args.seed", "model.init_args.seed")]
        root = f"--trainer.default_root_dir={run.folder}"
        callbacks = [_callback("RunRecord", split=run.split)]
        callbacks += [_callback("Budget", **self.budget)] if self.budget else []
        return ["fit", "--config", self.fit, *self.arms[run.arm].options, *options, *seeds, root, *callbacks]

    def _folder(self, *parts: str) -> Path:
        return self.folder.joinpath(*(_file_name(part) for part in parts))


def told(settings: Settings) -> str:
    """Options of the grid in short."""
    return ",".join(f"{plain_key(option)}={value}" for option, value in settings.items()) or "as it is"


def read_ablation(path: Path) -> Ablation:
    """An ablation file: YAML with the arguments of `Ablation`.

    An arm is the options of `lightning fit` as one text, or a mapping with these `options` and a list `without` of options
    of the grid. `chosen` is a file beside this one, or one that `--config` would find. By default each arm is compared with
    the first.

    Raises:
        ValueError: If it is no YAML, a key is missing or unknown, or holds another kind of value.
    """
    given = parse_yaml(read_text(path), path)
    if not isinstance(given, dict) or not set(NEEDED) <= set(given) <= {*NEEDED, *OPTIONAL}:
        found = ", ".join(map(str, given)) if isinstance(given, dict) else "no keys"
        may = ", ".join(OPTIONAL)
        raise ValueError(f"{path}: an ablation has {', '.join(sorted(NEEDED))} and may have {may}; found: {found}")

    def require(fine: bool, rule: str) -> None:
        if not fine:
            raise ValueError(f"{path}: {rule}")

    arms, seeds, grid_seeds = given["arms"], given["seeds"], given.get("grid_seeds", [])
    budget, grid, chosen = given.get("budget", {}), given.get("grid", {}), given.get("chosen")
    require(
        isinstance(arms, dict) and all(isinstance(name, str) and _is_arm(made) for name, made in arms.items()),
        "arms are names, each with the options of `lightning fit` as one text, or with `options` and `without`",
    )
    for name, found in {"seeds": seeds, "grid_seeds": grid_seeds}.items():
        require(
            isinstance(found, list) and all(type(seed) is int for seed in found), f"{name} are a list of whole numbers"
        )
    require(
        not set(seeds) & set(grid_seeds), "an arm is judged on a seed that chose its options: give other grid_seeds"
    )
    require(
        isinstance(grid, dict) and all(isinstance(values, list) and values for values in grid.values()),
        "grid is a mapping of options of `lightning fit`, each with a list of values",
    )
    require(bool(grid) == bool(grid_seeds), "grid and grid_seeds come together")
    require(not (grid and chosen), "options are either `chosen` or found by a `grid`: give one of them")
    require(
        isinstance(budget, dict) and (not budget or (len(budget) == 1 and set(budget) < set(UNITS))),
        f"budget is a mapping with one of {', '.join(UNITS)}",
    )
    made = {name: _choices(choices) for name, choices in arms.items()}
    require(len({_file_name(name) for name in made}) == len(made), "two arms have the same folder: name them apart")
    unknown = [option for each in made.values() for option in each.without if grid and option not in grid]
    require(not unknown, f"`without` names {', '.join(unknown)}, which is not in the grid")
    pairs = given.get("comparisons") or [[arm, next(iter(made))] for arm in list(made)[1:]]
    require(
        isinstance(pairs, list)
        and all(isinstance(pair, list) and len(pair) == 2 and set(pair) <= {*made} for pair in pairs),
        "comparisons are a list of pairs of arms, [arm, reference]",
    )
    measures = given.get("measures", [])
    require(
        isinstance(measures, list) and all(str(name).partition("/")[0] in MEASURES for name in measures),
        f"measures are a list of {', '.join(MEASURES)}, or one of a task or term, such as exact/sod or reward/format",
    )
    return Ablation(
        Path(given["folder"]),
        given["fit"],
        made,
        tuple(seeds),
        given.get("processes", 1),
        budget,
        grid,
        tuple(grid_seeds),
        _beside(path, chosen) if chosen else None,
        tuple((ours, theirs) for ours, theirs in pairs),
        tuple(measures),
    )


def _is_arm(made: Any) -> bool:
    if isinstance(made, dict):
        return isinstance(made.get("options"), str) and isinstance(made.get("without", []), list) and len(made) <= 2
    return isinstance(made, str)


def _choices(made: Any) -> Choices:
    given = made if isinstance(made, dict) else {"options": made}
    return Choices(tuple(shlex.split(given["options"])), tuple(given.get("without", ())))


def _combinations(grid: Mapping[str, Sequence[Any]], without: Sequence[str]) -> list[dict[str, Any]]:
    options = [option for option in grid if option not in without]
    return [dict(zip(options, values, strict=True)) for values in product(*(grid[option] for option in options))]


def _callback(name: str, **options: Any) -> str:
    return "--trainer.callbacks+=" + json.dumps({"class_path": f"lightning_sal.callbacks.{name}", "init_args": options})


def _beside(path: Path, name: str) -> Path:
    beside = path.parent / name
    return beside if beside.is_file() else Path(name)


def _file_name(text: str) -> str:
    return text.replace(" ", "_").replace("/", "_")
