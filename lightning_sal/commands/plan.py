"""estimate parameters, tokens and peak memory of a config, before anything is downloaded or trained"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sal.policy.estimate import Estimate

GROUP = 8  # Images of a CoSOD sample where the data module does not say


def main(argv: list[str]) -> int:
    """Print what a config would train and what a step of SFT, CGPO and GRPO would take on it.

    Returns:
        0, or 2 where the config cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-sal plan",
        description="Estimate parameters, tokens of a prompt, and peak memory of a step, for the model and the batch of a "
        "config of `lightning fit`. No weight is loaded. All other options are those of `lightning fit`, as --config "
        "FILE and --data.init_args.batch_size 8.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--image-size",
        default="1024x768",
        metavar="WxH",
        help="width x height of the photographs, in pixels; by default 1024x768",
    )
    parser.add_argument(
        "--responses", type=int, default=8, metavar="G", help="responses to a prompt in GRPO; by default 8"
    )
    arguments, rest = parser.parse_known_args(argv)
    sides = arguments.image_size.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"--image-size {arguments.image_size}: give width x height in pixels, as 1024x768")
    given = _read(rest)
    if given is None:
        return 2

    from rich.console import Console

    from lightning_sal.policy.config import LoRA, PolicyConfig
    from lightning_sal.policy.estimate import Sizes, Step, estimate
    from lightning_sal.policy.shape import (
        count_parameters,
        load_shape,
        most_visual_tokens,
        prompt_tokens,
        visual_tokens,
    )

    options, data = given["model"]["init_args"], given["data"].get("init_args", {})
    lora = options["policy"].pop("lora", None)
    config = PolicyConfig(
        **options["policy"], lora=LoRA(**lora | {"targets": tuple(lora["targets"])}) if lora else None
    )
    console = Console(width=None if sys.stdout.isatty() else 140)
    if config.model.startswith(f"{given['paths']['runs']}/") and not Path(config.model).is_dir():
        console.print(f"{config.model} is not there yet: sizes are those of {given['paths']['policy']}.")
        config = replace(config, model=given["paths"]["policy"])
    model, processor, instructions = load_shape(config)
    console.print(_counts(f"Parameters of {config.model}", count_parameters(model)))

    width, height = (int(side) for side in sides)
    visual, most = visual_tokens(processor, height, width), most_visual_tokens(processor)
    images = {"sod": 1, "sis": 1, "cosod": data.get("group_size") or GROUP}
    lengths = {task: prompt_tokens(processor, instructions[task], k, visual) for task, k in images.items()}
    bounds = {task: prompt_tokens(processor, instructions[task], k, most) for task, k in images.items()}
    limit = config.max_prompt_tokens
    console.print(_prompts(arguments.image_size, images, visual, most, lengths, bounds, limit))

    fitting = {task: length for task, length in lengths.items() if length <= limit}
    if not fitting:
        console.print(f"No prompt of such images fits into max_prompt_tokens {limit}: lower policy.max_pixels.")
        return 0
    autocast = str(given["trainer"].get("precision") or "").endswith("-mixed")
    sizes = Sizes.of(model, config, autocast=autocast)
    prompts, tokens = data.get("batch_size", 1), options["max_new_tokens"]
    task = max(fitting, key=lambda name: fitting[name])

    def step(responses: int, *, sampled: bool = True) -> Step:
        micro = options["micro_batch_size"]
        return Step(prompts, images[task], visual, lengths[task], tokens, responses, micro, sampled)

    steps = {
        "SFT": step(1, sampled=False),
        "CGPO": step(1),
        f"GRPO, G = {arguments.responses}": step(arguments.responses),
    }
    columns = {
        (name, checkpointing): estimate(sizes, each, checkpointing=checkpointing)
        for name, each in steps.items()
        for checkpointing in (False, True)
    }
    title = (
        f"Memory of a step, estimated: {prompts} {task} prompts of {lengths[task]} tokens, {tokens} tokens a "
        f"response, micro-batches of {options['micro_batch_size'] or 'all'}"
    )
    console.print(_memory(title, columns, configured=config.gradient_checkpointing))
    return 0


def _read(argv: list[str]) -> dict[str, Any] | None:
    """A config as `lightning fit` reads it, every default in it; None where it complained."""
    import yaml

    from lightning_sal.cli import main as lightning

    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            lightning(["fit", *argv, "--print_config"])
        return None
    except SystemExit as stop:  # how --print_config ends
        if stop.code:
            return None
    given = yaml.safe_load(printed.getvalue())
    if "policy" not in given["model"].get("init_args", {}):
        raise ValueError(f"{given['model']['class_path']} trains no policy: plan is for SFT, CGPO and the GRPO family")
    return given


def _counts(title: str, counts: Mapping[str, tuple[int, int]]) -> Any:
    from rich.table import Table

    grid = Table(title=title)
    for head in ("part", "trainable", "frozen"):
        grid.add_column(head, justify="left" if head == "part" else "right")
    for part, (trainable, frozen) in counts.items():
        grid.add_row(part, f"{trainable:,}", f"{frozen:,}", end_section=part == "adapters")
    trainable, frozen = (sum(column) for column in zip(*counts.values(), strict=True))
    grid.add_row("all", f"{trainable:,}", f"{frozen:,}")
    return grid


def _prompts(
    size: str,
    images: Mapping[str, int],
    visual: int,
    most: int,
    lengths: Mapping[str, int],
    bounds: Mapping[str, int],
    limit: int,
) -> Any:
    from rich.table import Table

    def tokens(count: int) -> str:
        return f"{count:,}{'' if count <= limit else ' refused'}"

    grid = Table(
        title=f"Tokens of a prompt, for images of {size} pixels ({visual:,} visual tokens each) and at most ({most:,})",
        caption=f"max_prompt_tokens {limit:,}: a longer prompt is refused",
    )
    for head in ("task", "images", "visual tokens", "prompt tokens", "at most"):
        grid.add_column(head, justify="left" if head == "task" else "right")
    for task, count in images.items():
        grid.add_row(task, str(count), f"{count * visual:,}", tokens(lengths[task]), tokens(bounds[task]))
    return grid


def _memory(title: str, columns: Mapping[tuple[str, bool], Estimate], *, configured: bool) -> Any:
    """One column an objective and a setting of gradient checkpointing; a row a phase, below it its parts."""
    from rich.table import Table

    estimates = list(columns.values())
    unit, name = (1e9, "GB") if max(each.peak for each in estimates) >= 1e9 else (1e6, "MB")
    grid = Table(
        title=f"{title}, in {name}",
        caption="of tensors; what the allocator rounds up, what kernels borrow and the segmenter come on top",
    )
    grid.add_column("gradient checkpointing", no_wrap=True)
    for objective, checkpointing in columns:
        setting = ("on" if checkpointing else "off") + (" (configured)" if checkpointing == configured else "")
        grid.add_column(f"{objective}\n{setting}", justify="right")

    def rows(head: str, parts: Sequence[Mapping[str, int]]) -> None:
        grid.add_row(head, *(f"{sum(each.values()) / unit:.1f}" if each else "" for each in parts))
        for part in dict.fromkeys(part for each in parts for part in each if each[part]):
            grid.add_row(f"  {part}", *(f"{each[part] / unit:.2f}" if part in each else "" for each in parts))
        grid.add_section()

    rows("at all times", [each.held for each in estimates])
    for phase in max((each.phases for each in estimates), key=len):
        rows(phase, [each.phases.get(phase, {}) for each in estimates])
    grid.add_row("peak", *(f"{each.peak / unit:.1f}" for each in estimates))
    grid.add_row("", *(f"({each.largest})" for each in estimates))
    return grid
