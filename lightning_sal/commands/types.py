"""count the response types in saved rollouts, with each algorithm's advantage by type"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.files.reading import parse_object

if TYPE_CHECKING:
    from torch import Tensor

PROMPT = ("step", "rank", "task", "key")
NUMBERS = ("reward", "confidence", "advantage")


def main(argv: list[str]) -> int:
    """Print shares, mean reward, confidence and advantages by response type of what `RolloutWriter` wrote."""
    arguments = _parser().parse_args(argv)
    if arguments.figure is not None and arguments.figure.exists():
        raise FileExistsError(f"{arguments.figure}: there is such a file already, and it is not overwritten")

    import torch
    from rich.console import Console

    from lightning_sal.evaluation.response_types import (
        advantages_by_algorithm,
        classify,
        figure,
        heading,
        require_matplotlib,
        threshold,
    )

    if arguments.figure is not None:
        require_matplotlib()
    rows = [row for path in arguments.files for row in _read(path)]
    if not rows:
        raise ValueError(
            f"{arguments.files[0]}: there are no rollouts in it; give files that RolloutWriter has written"
        )
    rewards, confidence, trained = torch.tensor([numbers for _, numbers in rows]).T
    prompts = [prompt for prompt, _ in rows]
    steps = [(path.parent, step) for path, step, *_ in prompts]  # the processes of a run write into one folder
    advantages = {"as trained": trained, **advantages_by_algorithm(rewards, confidence, prompts, steps)}
    known = {name: values for name, values in advantages.items() if not values.isnan().all()}
    limits = threshold(rewards, arguments.reward_threshold), threshold(confidence, arguments.confidence_threshold)
    types = classify(rewards, confidence, *limits)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(heading(len(rows), *limits), types, {"reward": rewards, "confidence": confidence}, known))
    if missing := [name for name in advantages if name not in known]:
        console.print(f"No prompt has two responses at a step: {', '.join(missing)} left out.", soft_wrap=True)
    if arguments.figure is not None:
        figure(rewards, confidence, known, *limits).savefig(arguments.figure, dpi=150)
        console.print(f"Figure: {arguments.figure}", soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal types",
        description="Sort sampled responses by reward (Hr, Lr) and confidence (Hc, Lc), high or low, and show the mean "
        "advantage of each type: that of the training, of CGPO and those of its variants that need no token's probability, "
        "of BatchLOO, and of GRPO, Dr.GRPO and RLOO over the responses to the same prompt at the same step, where there "
        "are several.",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="rollouts*.jsonl that RolloutWriter has written"
    )
    parser.add_argument(
        "--reward-threshold",
        type=float,
        metavar="REWARD",
        help="where a high reward begins; by default the mean of all responses, which leaves some on both sides "
        "wherever any two differ",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="CONFIDENCE",
        help="where high confidence begins, in [0, 1]; by default the mean likewise",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw them too, to a file that does not exist yet (.png, .pdf, .svg)",
    )
    return parser


def _read(path: Path) -> Iterator[tuple[tuple[Any, ...], list[float]]]:
    """For each line, what tells its prompt from others, and its numbers.

    A last line without an end, of a run that was killed or still writes, is left out and reported.

    Raises:
        ValueError: If another line is not one of `RolloutWriter`; it is named.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                print(f"{path}:{number}: the last line is unfinished and left out", file=sys.stderr)
                return
            try:
                fields = parse_object(line)
                numbers = [float(fields[name]) for name in NUMBERS]
                # Each file is of another process or another run, so its path tells prompts apart too.
                prompt = (path, *(fields[name] for name in PROMPT))
                hash(prompt)  # lists and objects cannot tell prompts apart
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise ValueError(f"{path}:{number}: not a line of RolloutWriter: {error}") from None
            yield prompt, numbers


def _table(title: str, types: Tensor, values: dict[str, Tensor], advantages: dict[str, Tensor]) -> Any:
    """A Rich table, one column a type and one for all; values of a type that no response has are left blank."""
    from rich.table import Table

    from lightning_sal.evaluation.response_types import TYPES, mean_by_type, shares

    grid = Table("", title=title, caption="shares, mean reward and confidence, and mean advantages of each type")
    for head in (*TYPES, "all"):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_row("share", *(f"{100 * share:.1f} %" for share in (*shares(types).values(), 1)))
    for name, column in (values | advantages).items():
        form = "{:.3f}" if name in values else "{:+.3f}"
        means = (*mean_by_type(column, types).values(), column.nanmean().item())
        cells = ("" if math.isnan(mean) else form.format(mean) for mean in means)
        grid.add_row(name, *cells, end_section=name == list(values)[-1])
    return grid
