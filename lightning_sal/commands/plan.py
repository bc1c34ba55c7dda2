"""estimate parameters, tokens and peak memory of a config, before anything is downloaded or trained"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.configs.running import run

if TYPE_CHECKING:
    from lightning_sal.policy.config import PolicyConfig
    from lightning_sal.policy.estimate import Estimate
    from lightning_sal.tasks import Task

GROUP = 8  # Images of a sample of several where the data module does not say


@dataclass(frozen=True)
class _Prompt:
    """The prompt of a task: its images and what each takes, its tokens, and the most that it can have."""

    task: str
    images: int
    visual: int
    tokens: int
    most: int


def main(argv: list[str]) -> int:
    """Print what a config would train and what a step of SFT, CGPO and GRPO would take on it.

    Returns:
        0; a config that cannot be read is refused as `lightning fit` refuses it.
    """
    arguments, rest = _parser().parse_known_args(argv)
    width, height = _sides(arguments.image_size)

    from lightning_sal.tasks import TASKS, load_task

    tasks = [load_task(task) for task in arguments.task] if arguments.task else list(TASKS.values())
    given = _read(rest)

    from rich.console import Console

    from lightning_sal.policy.shape import count_parameters, load_shape, most_visual_tokens, visual_tokens

    console = Console(width=None if sys.stdout.isatty() else 140)
    config = _policy_config(given)
    if config.model.startswith(f"{given['paths']['runs']}/") and not Path(config.model).is_dir():
        console.print(f"{config.model} is not there yet: sizes are those of {given['paths']['policy']}.")
        config = replace(config, model=given["paths"]["policy"])
    model, processor, stated = load_shape(config)
    console.print(_counts(f"Parameters of {config.model}", count_parameters(model)))

    visual, most = visual_tokens(processor, height, width), most_visual_tokens(processor)
    size = given["data"].get("init_args", {}).get("group_size") or GROUP
    prompts = [_prompt(task, size, processor, stated, (height, width)) for task in tasks]
    limit = config.max_prompt_tokens
    title = (
        f"Tokens of a prompt, for images of {arguments.image_size} pixels ({visual:,} visual tokens each) and at most"
    )
    console.print(_prompt_table(f"{title} ({most:,})", prompts, limit))

    longest = max((p for p in prompts if p.tokens <= limit), key=lambda p: p.tokens, default=None)
    if longest is None:
        console.print(f"No prompt of such images fits into max_prompt_tokens {limit}: lower policy.max_pixels.")
        return 0
    title, columns = _estimates(given, model, config, longest, arguments.responses)
    console.print(_memory(title, columns, configured=config.gradient_checkpointing))
    return 0


def _parser() -> argparse.ArgumentParser:
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
        "--task",
        action="append",
        metavar="TASK",
        help="the prompts of this task: sod, sis, cosod, or your own as FILE.py:NAME; may be there several times; by "
        "default all that are known",
    )
    parser.add_argument(
        "--responses", type=int, default=8, metavar="G", help="responses to a prompt in GRPO; by default 8"
    )
    return parser


def _sides(size: str) -> tuple[int, int]:
    sides = size.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"--image-size {size}: give width x height in pixels, as 1024x768")
    return int(sides[0]), int(sides[1])


def _read(argv: list[str]) -> dict[str, Any]:
    """A config as `lightning fit` reads it, every default in it."""
    import yaml

    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run(["fit", *argv, "--print_config"])
    except SystemExit as stop:  # how --print_config ends
        if stop.code:
            raise
    given = yaml.safe_load(printed.getvalue())
    if "policy" not in given["model"].get("init_args", {}):
        raise ValueError(f"{given['model']['class_path']} trains no policy: plan is for SFT, CGPO and the GRPO family")
    return given


def _policy_config(given: Mapping[str, Any]) -> PolicyConfig:
    from lightning_sal.policy.config import LoRA, PolicyConfig

    options = dict(given["model"]["init_args"]["policy"])
    lora = options.pop("lora", None)
    return PolicyConfig(**options, lora=LoRA(**lora | {"targets": tuple(lora["targets"])}) if lora else None)


def _prompt(task: Task, group_size: int, processor: Any, stated: Mapping[str, str], size: tuple[int, int]) -> _Prompt:
    """The prompt of a task, for photographs of H x W pixels."""
    import torch

    from lightning_sal.policy.shape import most_visual_tokens, prompt_tokens, visual_tokens
    from lightning_sal.samples import ImageGroup

    images = (torch.zeros(*size, 3, dtype=torch.uint8),) * (group_size if task.several else 1)
    messages = task.messages(ImageGroup("", task.name, images), stated.get(task.label))
    height, width = task.view(images[0]).shape[:2]
    visual = visual_tokens(processor, height, width)
    tokens, most = (prompt_tokens(processor, messages, each) for each in (visual, most_visual_tokens(processor)))
    return _Prompt(task.name, len(images), visual, tokens, most)


def _estimates(
    given: Mapping[str, Any], model: Any, config: PolicyConfig, prompt: _Prompt, responses: int
) -> tuple[str, dict[tuple[str, bool], Estimate]]:
    """What a step is, in words; and its memory by objective and by whether gradients are checkpointed."""
    from lightning_sal.policy.estimate import Sizes, Step, estimate

    options, prompts = given["model"]["init_args"], given["data"].get("init_args", {}).get("batch_size", 1)
    tokens, micro = options["max_new_tokens"], options["micro_batch_size"]
    sizes = Sizes.of(model, config, autocast=str(given["trainer"].get("precision") or "").endswith("-mixed"))

    def step(responses: int, *, sampled: bool = True) -> Step:
        return Step(prompts, prompt.images, prompt.visual, prompt.tokens, tokens, responses, micro, sampled)

    steps = {"SFT": step(1, sampled=False), "CGPO": step(1), f"GRPO, G = {responses}": step(responses)}
    columns = {
        (name, checkpointing): estimate(sizes, each, checkpointing=checkpointing)
        for name, each in steps.items()
        for checkpointing in (False, True)
    }
    title = (
        f"Memory of a step, estimated: {prompts} {prompt.task} prompts of {prompt.tokens} tokens, {tokens} tokens a "
        f"response, micro-batches of {micro or 'all'}"
    )
    return title, columns


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


def _prompt_table(title: str, prompts: Sequence[_Prompt], limit: int) -> Any:
    from rich.table import Table

    def tokens(count: int) -> str:
        return f"{count:,}{'' if count <= limit else ' refused'}"

    grid = Table(title=title, caption=f"max_prompt_tokens {limit:,}: a longer prompt is refused")
    for head in ("task", "images", "visual tokens", "prompt tokens", "at most"):
        grid.add_column(head, justify="left" if head == "task" else "right")
    for each in prompts:
        visible = f"{each.images * each.visual:,}"
        grid.add_row(each.task, str(each.images), visible, tokens(each.tokens), tokens(each.most))
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
