"""have a strong multimodal model write SFT responses for a dataset"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.clients import LOCAL
from lightning_sal.clients.options import add_options, check_options, number, whole
from lightning_sal.errors import UsageError
from lightning_sal.internals.shell import installing

if TYPE_CHECKING:
    from lightning_sal.annotation.output import Output
    from lightning_sal.annotation.pictures import PictureCheck
    from lightning_sal.annotation.runner import Tally
    from lightning_sal.annotation.samples import Sample
    from lightning_sal.annotation.wording import Wording
    from lightning_sal.clients.budget import Budget

GO_ON = "the same command goes on from here"


def main(argv: list[str]) -> int:
    """Ask a model about every sample of a dataset and write what it says as an SFT JSONL.

    Returns:
        0 where every sample is in one of the two files, and after a dry run; 1 where the run stopped before.
    """
    arguments = _parser().parse_args(argv)
    _check(arguments)
    if find_spec("tenacity") is None:
        raise UsageError(f"annotate needs its libraries: {installing('annotate')}")

    import asyncio

    from lightning_sal.annotation.output import Output, done_keys
    from lightning_sal.annotation.runner import Limits, Runner
    from lightning_sal.annotation.samples import list_samples
    from lightning_sal.annotation.wording import Wording
    from lightning_sal.clients.api import make_client
    from lightning_sal.clients.budget import Budget, Estimate, Prices

    out = arguments.out
    samples = list_samples(
        arguments.task.name, arguments.data, out.parent, split=arguments.split, group_size=arguments.group_size
    )[: arguments.limit]
    wording = Wording.read(arguments.task.name, arguments.prompts)
    prices = None if arguments.price_in is None else Prices(arguments.price_in, arguments.price_out)
    estimate = Estimate.of(arguments.side, arguments.max_tokens, arguments.image_tokens)
    budget = Budget(estimate, prices, arguments.budget)
    if arguments.dry_run:
        done = done_keys(out, retry_rejected=arguments.retry_rejected)
        _show_estimate([sample for sample in samples if sample.key not in done], len(samples), wording, budget)
        return 0
    limits = Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})
    pictures = _picture_check(arguments)
    client = make_client(arguments.model, arguments.base_url, arguments.max_tokens, arguments.concurrency)
    output = Output(out, retry_rejected=arguments.retry_rejected)
    runner = Runner(client, wording, output, budget, limits, pictures)
    try:
        with _progress(sum(sample.key not in output.done for sample in samples), budget) as runner.watch:
            asyncio.run(runner.run(samples))
    except KeyboardInterrupt:
        runner.tally.stopped = "interrupted"
        raise
    finally:
        output.close()
        _show_summary(runner.tally, output, budget)
    return int(runner.tally.stopped is not None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal annotate",
        description="Show a model each photograph (or group) with its ground truth, have it explain why it stands out, and "
        "keep what fits the task's format. Run again, it goes on where it ended. Keys are read from OPENAI_API_KEY, or "
        "GEMINI_API_KEY or GOOGLE_API_KEY, alone.",
    )
    add = parser.add_argument
    add("--task", required=True, help="sod, sis, cosod, or your own as FILE.py:NAME")
    add("--data", type=Path, required=True, help="folder of any layout that the data modules read, COCO json, or JSONL")
    add("--out", type=Path, required=True, help="SFT JSONL; rejected samples go beside it, to NAME.rejected.jsonl")
    add("--model", required=True, help="NAME at an OpenAI-compatible API, gemini:NAME, or local:FOLDER_OR_HUB_NAME")
    add("--split", choices=("train", "val", "test"), help="where the data hold several")
    add("--limit", type=whole(1), help="only the first so many samples")
    add("--group-size", type=whole(2), default=8, help="CoSOD: most photographs of a request (%(default)s)")
    add(
        "--prompts",
        type=Path,
        help="folder whose TASK.md, again.md, forbidden.txt replace the packaged, as sod.md does for sod",
    )
    add("--max-side", dest="side", type=whole(64), default=768, help="longest side of an image in pixels (%(default)s)")
    add("--max-tokens", type=whole(1), default=2048, help="of an answer, thoughts included (%(default)s)")
    add("--answers", type=whole(1), default=3, help="times a sample is answered before it is rejected (%(default)s)")
    add(
        "--retries",
        type=whole(0),
        default=5,
        help="times a request that failed on its way is sent again (%(default)s)",
    )
    add("--backoff", type=number, default=1.0, help="seconds that the first wait is at most; it doubles (%(default)s)")
    add("--timeout", type=number, default=120.0, help="seconds that a request may take (%(default)s)")
    add("--concurrency", type=whole(1), default=8, help="samples at once; for local: of a batch (%(default)s)")
    add(
        "--give-up-after",
        dest="failures",
        type=whole(1),
        default=10,
        help="samples in a row without any answer (%(default)s)",
    )
    add_options(parser)
    add("--image-tokens", type=whole(1), help="that an image takes at most, for estimates and the budget")
    add("--segmenter", help="keep only what this finds: EVF-SAM2 folder or hub name, or tiny")
    add("--min-measure", type=number, help="primary measure of the task that the segmenter's masks must reach")
    add("--min-s-measure", type=number, help="the same by its name: S-measure, of SOD and CoSOD")
    add("--min-matched-s", type=number, help="S-measure of the matched instances, of SIS")
    add("--retry-rejected", action="store_true", help="ask for rejected samples again")
    add("--dry-run", action="store_true", help="estimate tokens and cost, and end")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Loads the task; raises UsageError where options do not go together."""
    from lightning_sal.tasks import load_task

    arguments.task = load_task(arguments.task)
    check_options(arguments)
    _check_pictures(arguments)
    if arguments.model.startswith(LOCAL):
        arguments.timeout = None  # a batch takes what it takes


def _check_pictures(arguments: argparse.Namespace) -> None:
    """Sets `least`, what the primary measure of the task must reach; raises UsageError where it is that of another task."""
    from lightning_sal.tasks.measures import primary

    task = arguments.task
    own = f"min_{primary(task.measures())}"
    given = {name: each for name, each in vars(arguments).items() if name.startswith("min_") and each is not None}
    wanted = _option(own if hasattr(arguments, own) else "min_measure")
    if others := sorted(set(given) - {own, "min_measure"}):
        raise UsageError(f"{_option(others[0])} is no measure of {task.name}: use {wanted}")
    if len(given) > 1:
        raise UsageError(f"{' and '.join(map(_option, given))} say the same: give one of them")
    arguments.least = next(iter(given.values()), None)
    if (arguments.segmenter is None) != (arguments.least is None):
        raise UsageError(f"the check by pictures needs both --segmenter and {wanted}")
    if arguments.segmenter is not None and task.prompt_type is not str:
        raise UsageError(f"the check by pictures asks a segmenter in words, and answers to {task.name} are none")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _picture_check(arguments: argparse.Namespace) -> PictureCheck | None:
    if arguments.segmenter is None:
        return None
    import torch

    from lightning_sal.annotation.pictures import PictureCheck
    from lightning_sal.segmenters import EVFSAM2
    from lightning_sal.segmenters.tiny import embedded_evf_sam2

    tiny = arguments.segmenter == "tiny"
    segmenter = embedded_evf_sam2() if tiny else EVFSAM2.from_pretrained(arguments.segmenter)
    return PictureCheck(segmenter.to("cuda" if torch.cuda.is_available() else "cpu"), arguments.least)


def _show_estimate(samples: Sequence[Sample], all_samples: int, wording: Wording, budget: Budget) -> None:
    """What it would take to ask once about each sample, as it is to be expected and at most."""
    from lightning_sal.annotation.requests import shown_images, text_of
    from lightning_sal.clients.planning import forecast
    from lightning_sal.tasks import get_task

    shown = [shown_images(get_task(sample.record.task), len(sample.record.photographs)) for sample in samples]
    texts = [text_of(sample, wording, {"instances": 9, "noise": ""}) for sample in samples]
    planned = forecast(
        [([text], images) for text, images in zip(texts, shown, strict=True)], budget.estimate, budget.prices
    )
    title = f"{planned.requests} of {all_samples} samples to ask for, {planned.images} images, one answer each"
    _print_table(title, ("", "about", "at most"), planned.rows())


def _show_summary(tally: Tally, output: Output, budget: Budget) -> None:
    rows = [("accepted", str(tally.accepted))]
    rows += [(f"rejected, {kind}", str(count)) for kind, count in tally.rejected.most_common()]
    rows += [("requests", str(budget.requests)), ("input tokens", f"{budget.input_tokens:,}")]
    rows += [("output tokens", f"{budget.output_tokens:,}")]
    if budget.unknown:
        rows += [("requests of unknown cost", str(budget.unknown))]
    if budget.prices:
        rows += [("cost, at most", f"${budget.spent:.4f}")]
    _print_table("This run", ("", ""), rows)
    print(f"{output.path}: {len(output.accepted)} lines; {output.rejected_path}: {len(output.rejected)} lines")
    if tally.stopped:
        print(f"lightning-sal annotate: stopped: {tally.stopped}; {GO_ON}", file=sys.stderr)


def _print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    print(title)
    grid = Table(show_header=any(heads))
    for head in heads:
        grid.add_column(head, justify="right" if grid.columns else "left")
    for row in rows:
        grid.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(grid)


@contextmanager
def _progress(total: int, budget: Budget) -> Iterator[Callable[[Any], None]]:
    """A bar of samples with what they cost so far; gives what is to be called when one has ended."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=total)

        def watch(tally: Tally) -> None:
            cost = f", ${budget.spent:.4f}" if budget.prices else ""
            ended = tally.accepted + tally.rejected.total()
            bar.update(shown, completed=ended, description=f"{tally.accepted} accepted{cost}")

        yield watch
