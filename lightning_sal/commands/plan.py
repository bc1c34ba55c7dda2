"""estimate parameters, tokens, peak memory and seconds of a config, before anything is downloaded or trained"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.configs.reading import GROUP_SIZE, asked_groups, blank_group, datamodule_of, model_of, read_config
from lightning_sal.errors import UsageError

if TYPE_CHECKING:
    from lightning_sal.clients.endpoint_config import EndpointConfig
    from lightning_sal.policy.config import PolicyConfig
    from lightning_sal.policy.estimate import Estimate
    from lightning_sal.policy.gpus import GPU
    from lightning_sal.policy.seconds import Work
    from lightning_sal.samples import ImageGroup
    from lightning_sal.tasks import Task


@dataclass(frozen=True)
class _Prompt:
    """The prompt of a task: its images and what each takes, its tokens, and the most that it can have, if that is known."""

    task: str
    images: int
    visual: int
    tokens: int
    most: int | None


@dataclass(frozen=True)
class _Column:
    """An objective, with or without gradient checkpointing: its name, and what a step of it takes, as far as is known."""

    objective: str
    checkpointing: bool
    memory: Estimate
    work: Mapping[str, Work]


def main(argv: list[str]) -> int:
    """Print what a config would train and what a step of SFT, CGPO and GRPO would take on it.

    Returns:
        0; a config that cannot be read is refused as `lightning fit` refuses it.
    """
    arguments, rest = _parser().parse_known_args(argv)
    width, height = _sides(arguments.image_size)
    gpus = _gpus(arguments)

    from lightning_sal.tasks import TASKS, load_task

    tasks = [load_task(task) for task in arguments.task] if arguments.task else list(TASKS.values())
    given = read_config(rest)
    config = model_of(given)

    from rich.console import Console

    from lightning_sal.clients.endpoint_config import EndpointConfig
    from lightning_sal.policy.fast import FastPolicy
    from lightning_sal.policy.make import policy_class
    from lightning_sal.policy.shape import count_parameters, load_shape

    console = Console(width=None if sys.stdout.isatty() else 140)
    if isinstance(config, EndpointConfig):
        return _plan_endpoint(console, config, given, arguments)
    if arguments.samples is not None:
        raise UsageError(
            "--samples counts what a model behind an endpoint is asked, and the one of this config is none"
        )
    if config.model.startswith(f"{given['paths']['runs']}/") and not Path(config.model).is_dir():
        console.print(f"{config.model} is not there yet: sizes are those of {given['paths']['policy']}.")
        config = replace(config, model=given["paths"]["policy"])
    model, processor, stated = load_shape(config)
    console.print(_counts(f"Parameters of {config.model}", count_parameters(model)))

    fast = policy_class(config) is FastPolicy
    size = given["data"].get("init_args", {}).get("group_size") or GROUP_SIZE
    prompts = [_prompt(task, size, model, processor, stated, (height, width), config, fast=fast) for task in tasks]
    limit = config.max_prompt_tokens
    console.print(_prompt_table(f"Tokens of a prompt, for images of {arguments.image_size} pixels", prompts, limit))

    longest = max((p for p in prompts if p.tokens <= limit), key=lambda p: p.tokens, default=None)
    if longest is None:
        console.print(f"No prompt of such images fits into max_prompt_tokens {limit}: lower policy.max_pixels.")
        return 0
    title, columns = _estimates(given, model, config, longest, arguments.responses, fast=fast)
    configured = config.gradient_checkpointing
    console.print(_memory(title, columns, configured=configured, whole=fast))
    if not fast:
        console.print(f"{config.model} takes the general path, of which no seconds are estimated.")
        return 0
    shown = [column for column in columns if column.checkpointing == configured]
    console.print((_phases if len(gpus) == 1 else _totals)(gpus, shown))
    return 0


def _plan_endpoint(
    console: Any, config: EndpointConfig, given: Mapping[str, Any], arguments: argparse.Namespace
) -> int:
    """Print what `lightning test` would ask a model behind an endpoint, and what that takes."""
    from lightning_sal.clients.endpoint import AskedModel
    from lightning_sal.clients.planning import forecast, table
    from lightning_sal.clients.request_check import conversation, kept_answer
    from lightning_sal.tasks import load_task

    model = AskedModel(config, given["model"]["init_args"]["max_new_tokens"])
    names = [load_task(task).name for task in arguments.task or ()]
    samples = asked_groups(given) if arguments.samples is None else _made_up(given, names, arguments.samples)
    asked, kept, any_kept = [], 0, model.kept > 0
    for group, read in samples:
        if names and group.task not in names:
            continue
        if read is not None and any_kept and kept_answer(model, read):
            kept += 1
        else:
            asked.append(conversation(group, config))
    planned = forecast(asked, model.estimate, config.prices)
    console.print(
        f"{config.name} at {config.address}: {planned.requests} of {planned.requests + kept} samples to ask for, "
        f"{planned.images} images; the answers to {kept} are kept already"
    )
    console.print(table(planned, config))
    if planned.cost and config.budget is not None and planned.cost.most > config.budget:
        console.print(
            f"policy.budget ${config.budget:g} may end the run before its time; what is kept is not paid again."
        )
    return 0


def _made_up(given: Mapping[str, Any], tasks: Sequence[str], samples: int) -> Iterator[tuple[ImageGroup, None]]:
    """So many samples of each of some tasks, by default those that the data name, and nothing that reads them."""
    from lightning_sal.tasks import get_task

    size = given["data"].get("init_args", {}).get("group_size") or GROUP_SIZE
    for task in map(get_task, tasks or datamodule_of(given).known_tasks):
        yield from [(blank_group(task.name, size if task.several else 1), None)] * samples


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal plan",
        description="Estimate parameters, tokens of a prompt, peak memory and seconds of a step, for the model and the "
        "batch of a config of `lightning fit`. No weight is loaded, and no time is measured. Of what takes the general "
        "path the parts of memory are stated that follow from its shapes alone, and no seconds. Behind an endpoint: tokens, "
        "dollars and time of all that `lightning test` would ask. All other options are those of `lightning fit`, as "
        "--config FILE and --data.init_args.batch_size 8.",
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
    parser.add_argument(
        "--gpu",
        metavar="NAME",
        help="the seconds on this one, phase by phase: H200, H100, A100, L40S, RTX-4090, ...; by default the sum on each "
        "that is known",
    )
    parser.add_argument("--tflops", type=float, help="10^12 bf16 operations a second, of a GPU that is not known")
    parser.add_argument("--bandwidth", type=float, help="10^12 bytes a second of its memory, beside --tflops")
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="of a model behind an endpoint: so many samples of each task, in place of those of the data",
    )
    return parser


def _gpus(arguments: argparse.Namespace) -> dict[str, GPU]:
    """Name -> the GPUs that seconds are estimated for: the one that was asked for, else all that are known."""
    from lightning_sal.policy.gpus import GPU, GPUS

    tflops, bandwidth = arguments.tflops, arguments.bandwidth
    if (tflops is None) != (bandwidth is None):
        raise ValueError("--tflops and --bandwidth describe a GPU together: give both, or --gpu")
    if tflops is not None:
        if arguments.gpu is not None:
            raise ValueError(f"--gpu {arguments.gpu} states --tflops and --bandwidth itself: drop it, or drop these")
        if not (tflops > 0 and bandwidth > 0):
            raise ValueError(f"--tflops {tflops:g} and --bandwidth {bandwidth:g} must be above 0")
        return {f"{tflops:g} TFLOP/s, {bandwidth:g} TB/s": GPU(tflops, bandwidth)}
    if arguments.gpu is None:
        return GPUS
    if arguments.gpu not in GPUS:
        raise ValueError(f"--gpu {arguments.gpu}: give one of {', '.join(GPUS)}, or --tflops and --bandwidth")
    return {arguments.gpu: GPUS[arguments.gpu]}


def _sides(size: str) -> tuple[int, int]:
    sides = size.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"--image-size {size}: give width x height in pixels, as 1024x768")
    return int(sides[0]), int(sides[1])


def _prompt(
    task: Task,
    group_size: int,
    model: Any,
    processor: Any,
    stated: Mapping[str, str],
    size: tuple[int, int],
    config: PolicyConfig,
    *,
    fast: bool,
) -> _Prompt:
    """The prompt of a task, for photographs of H x W pixels."""
    from lightning_sal.policy.general.policy import fitted
    from lightning_sal.policy.shape import most_visual_tokens, prompt_tokens, read_prompt, visual_tokens

    group = blank_group(task.name, group_size if task.several else 1, size)
    messages, images = task.messages(group, stated.get(task.label)), [task.view(image) for image in group.images]
    if not fast:
        images = [fitted(image, processor, config) for image in images]
        return _Prompt(task.name, len(images), *read_prompt(model, processor, messages, images), most=None)
    visual = visual_tokens(processor, *images[0].shape[:2])
    tokens, most = (prompt_tokens(processor, messages, each) for each in (visual, most_visual_tokens(processor)))
    return _Prompt(task.name, len(images), visual, tokens, most)


def _estimates(
    given: Mapping[str, Any], model: Any, config: PolicyConfig, prompt: _Prompt, responses: int, *, fast: bool
) -> tuple[str, list[_Column]]:
    """What a step is, in words; and what it takes, by objective and by whether gradients are checkpointed."""
    from lightning_sal.policy.estimate import Sizes, Step, estimate
    from lightning_sal.policy.general.estimate import estimate_known
    from lightning_sal.policy.seconds import Matrices, work

    options, data = given["model"]["init_args"], given["data"].get("init_args", {})
    annotated = data.get("batch_size", 1)
    prompts = data.get("rl_batch_size") or annotated
    tokens, micro = options["max_new_tokens"], options["micro_batch_size"]
    autocast = str(given["trainer"].get("precision") or "").endswith("-mixed")
    number = 2 if autocast or config.dtype != "float32" else 4

    def step(responses: int, *, sampled: bool = True) -> Step:
        return Step(
            prompts if sampled else annotated,
            prompt.images,
            prompt.visual,
            prompt.tokens,
            tokens,
            responses,
            micro,
            sampled,
        )

    steps = {"SFT": step(1, sampled=False), "CGPO": step(1), f"GRPO, G = {responses}": step(responses)}
    if fast:
        sizes, matrices = Sizes.of(model, config, autocast=autocast), Matrices.of(model, config)
        columns = [
            _Column(
                name,
                checkpointing,
                estimate(sizes, each, checkpointing=checkpointing),
                work(matrices, sizes, each, checkpointing=checkpointing),
            )
            for name, each in steps.items()
            for checkpointing in (False, True)
        ]
    else:
        configured = config.gradient_checkpointing  # of which none of what is known depends
        columns = [_Column(name, configured, estimate_known(model, each, number), {}) for name, each in steps.items()]
    apart = "" if prompts == annotated else f" ({annotated} in an SFT step)"
    title = (
        f"{prompts} {prompt.task} prompts{apart} of {prompt.tokens} tokens, {tokens} tokens a response, micro-batches of "
        f"{micro or 'all'}, in {'float32' if number == 4 else 'half precision'}"
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

    def tokens(count: int | None) -> str:
        return "unknown" if count is None else f"{count:,}{'' if count <= limit else ' refused'}"

    grid = Table(title=title, caption=f"max_prompt_tokens {limit:,}: a longer prompt is refused")
    for head in ("task", "images", "visual tokens", "prompt tokens", "at most"):
        grid.add_column(head, justify="left" if head == "task" else "right")
    for each in prompts:
        visible = f"{each.images * each.visual:,}"
        grid.add_row(each.task, str(each.images), visible, tokens(each.tokens), tokens(each.most))
    return grid


def _memory(title: str, columns: Sequence[_Column], *, configured: bool, whole: bool) -> Any:
    """One column an objective and a setting of gradient checkpointing; a row a phase, below it its parts.

    Args:
        title: What a step is.
        columns: What it takes.
        configured: Whether gradients are checkpointed.
        whole: Whether activations and the vision tower are among it.
    """
    from rich.table import Table

    estimates = [column.memory for column in columns]
    unit, name = (1e9, "GB") if max(each.peak for each in estimates) >= 1e9 else (1e6, "MB")
    grid = Table(
        title=f"Memory of a step, estimated: {title}, in {name}",
        caption="of tensors, those of sampling as a GPU keeps them; "
        f"{'' if whole else 'activations, the vision tower, '}what the allocator rounds up, kernels borrow and the "
        "segmenter come on top",
    )
    grid.add_column("gradient checkpointing", no_wrap=True)
    for column in columns:
        setting = ("on" if column.checkpointing else "off") + (
            " (configured)" if column.checkpointing == configured else ""
        )
        grid.add_column(f"{column.objective}\n{setting}", justify="right")

    def rows(head: str, parts: Sequence[Mapping[str, int]]) -> None:
        grid.add_row(head, *(f"{sum(each.values()) / unit:.1f}" if each else "" for each in parts))
        for part in dict.fromkeys(part for each in parts for part in each if each[part]):
            grid.add_row(f"  {part}", *(f"{each[part] / unit:.2f}" if part in each else "" for each in parts))
        grid.add_section()

    rows("at all times", [each.held for each in estimates])
    for phase in max((each.phases for each in estimates), key=len):
        rows(phase, [each.phases.get(phase, {}) for each in estimates])
    grid.add_row("peak" if whole else "peak of these", *(f"{each.peak / unit:.1f}" for each in estimates))
    grid.add_row("", *(f"({each.largest})" for each in estimates))
    return grid


def _seconds(columns: Sequence[_Column], first: str, title: str) -> Any:
    """A table of seconds with no rows yet, which states what they are worth."""
    from rich.table import Table

    from lightning_sal.policy.gpus import REACHED_ARITHMETIC, REACHED_BANDWIDTH

    grid = Table(
        title=f"Seconds of a step{title}, from bandwidth and FLOP/s, not measured",
        min_width=100,
        caption=f"{REACHED_ARITHMETIC:.0%} of the FLOP/s in bf16 and {REACHED_BANDWIDTH:.0%} of the bandwidth that data "
        "sheets state are assumed; starting kernels, preparing images, segmenter and reward come on top",
    )
    for head in (first, *(column.objective for column in columns)):
        grid.add_column(head, justify="left" if head == first else "right")
    return grid


def _phases(gpus: Mapping[str, GPU], columns: Sequence[_Column]) -> Any:
    """One GPU: a row a phase, with its operations and bytes below it."""
    [(name, gpu)] = gpus.items()
    grid = _seconds(columns, "phase", f" on {name}")
    for phase in max((column.work for column in columns), key=len):
        works = [column.work.get(phase) for column in columns]
        grid.add_row(phase, *("" if each is None else _short(each.seconds(gpu)) for each in works))
        grid.add_row(
            "  10^12 operations, GB",
            *(
                "" if each is None else f"{_short(each.operations / 1e12)}, {_short(each.bytes / 1e9)}"
                for each in works
            ),
            end_section=True,
        )
    grid.add_row("all", *(_short(sum(each.seconds(gpu) for each in column.work.values())) for column in columns))
    return grid


def _totals(gpus: Mapping[str, GPU], columns: Sequence[_Column]) -> Any:
    """A row a GPU; in brackets where the estimated memory is more than it has."""
    grid = _seconds(columns, "GPU", "")
    for name, gpu in gpus.items():
        cells = []
        for column in columns:
            cell = _short(sum(each.seconds(gpu) for each in column.work.values()))
            fits = gpu.memory is None or column.memory.peak <= 1e9 * gpu.memory
            cells.append(cell if fits else f"({cell}) does not fit")
        grid.add_row(name, *cells)
    return grid


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
