"""explain responses by maps: where each label came from, by several methods, and how faithful each is"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning_sal.clients import is_endpoint
from lightning_sal.errors import UsageError, printable
from lightning_sal.internals.gpus import device
from lightning_sal.internals.hub import weights

if TYPE_CHECKING:
    from lightning_sal.explanations.cases import Case
    from lightning_sal.explanations.measuring import Measures
    from lightning_sal.explanations.method import Method
    from lightning_sal.policy.fast import FastPolicy
    from lightning_sal.samples import ImageGroup


def main(argv: list[str]) -> int:
    """Explain a response to every sample by every method, and write maps, pictures and tables.

    Returns:
        0 where all are explained, 1 where some could not be.
    """
    arguments = _parser().parse_args(argv)
    if is_endpoint(arguments.model):
        raise UsageError(
            f"{arguments.model} cannot be explained, since that needs its weights: explain what it answered by a model that "
            "is loaded here, by --responses with the folder of `segment`"
        )

    from lightning_sal.datasets.finding import find_samples
    from lightning_sal.explanations.folder import ExplanationFolder
    from lightning_sal.explanations.measuring import Measures
    from lightning_sal.explanations.methods import METHODS
    from lightning_sal.tasks import load_task

    try:
        task = load_task(arguments.task)
        sources = find_samples(task, arguments.paths, arguments.scenes, arguments.split)[: arguments.limit]
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    names = arguments.methods or list(METHODS)
    if unknown := [name for name in names if name not in METHODS]:
        raise UsageError(f"unknown method {unknown[0]!r}; known are {', '.join(METHODS)}")
    kept = ("model", "question", "scenes", "seed", "blur", "max_new_tokens", "max_pixels", "dtype")
    settings = {"task": task.name, "methods": names} | {name: getattr(arguments, name) for name in kept}
    folder = ExplanationFolder(arguments.out, settings)
    measures = {name: Measures() for name in names}
    left_out: list[str] = []
    covered: list[float] = []
    for case in _cases(sources, arguments, left_out):
        _explain(case, {name: METHODS[name] for name in names}, measures, folder, arguments, covered)
    share = sum(covered) / len(covered) if covered else None
    if folder.count:
        print(folder.finish(measures, left_out, share), end="")
    for line in left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    known = "" if share is None else f", whose regions cover {share:.1%} of the pictures"
    print(f"{folder.count} of {len(sources)} responses explained{known}: {arguments.out}")
    return int(bool(left_out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal explain",
        description="Say where each label of a response came from: a map of each image by each method of explanation, all "
        "on the same responses. Writes maps, pictures of them, and tables with the pointing games, where masks or boxes are "
        "known, and with insertion and deletion of the response's own likelihood.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="a dataset as `check-data` knows it, a JSONL, or image files, folders and quoted patterns as for `segment`",
    )
    parser.add_argument(
        "--scenes", type=_positive, metavar="N", help="N procedural scenes instead, held out of training"
    )
    parser.add_argument("--task", default="sod", help="%(default)s, or sis, cosod, vqa, or your own as FILE.py:NAME")
    parser.add_argument("--split", choices=("train", "val", "test"), help="where a dataset holds several")
    parser.add_argument("--question", help="what is asked of every image beside the task's instruction")
    parser.add_argument(
        "--model",
        type=weights,
        default="tiny",
        help="the policy: %(default)s, a folder, a hub name, a checkpoint, a folder of adapters",
    )
    parser.add_argument(
        "--responses",
        type=Path,
        metavar="PATH",
        help="explain these instead of the policy's likeliest: a folder of `segment`, `predict` or `explain`, or a JSONL",
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="by default all, which the table names")
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), help="a new folder; by default %(default)s")
    parser.add_argument("--limit", type=_positive, help="explain the first so many alone")
    parser.add_argument("--seed", type=int, default=0, help="of the random maps; %(default)s")
    parser.add_argument("--blur", type=float, help="blank pictures are blurred by so many pixels, instead of black")
    parser.add_argument("--batch-size", type=_positive, default=8, help="changed pictures scored at once; %(default)s")
    parser.add_argument("--max-new-tokens", type=_positive, default=512, help="limit of a response; %(default)s")
    parser.add_argument("--max-pixels", type=_positive, help="most pixels of an image that the policy sees")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the policy's frozen weights")
    parser.add_argument("--device", type=device, help="as torch names it, by default cuda where there is one")
    return parser


def _cases(
    sources: Sequence[Callable[[], ImageGroup]], arguments: argparse.Namespace, left_out: list[str]
) -> Iterator[Case]:
    """The responses that can be explained; each other one adds its line."""
    from rich.console import Console
    from rich.progress import track
    from transformers.utils.logging import disable_progress_bar

    from lightning_sal.explanations.responses import read_responses_of
    from lightning_sal.inference.predictor import default_device, find_device, load_policy

    disable_progress_bar()  # there is one of ours
    given = None if arguments.responses is None else read_responses_of(arguments.responses)
    console = Console(stderr=True)
    with console.status(f"loading {arguments.model}"):
        device = find_device(arguments.device or default_device())
        stated = {"dtype": arguments.dtype, "max_pixels": arguments.max_pixels}
        settings = {name: value for name, value in stated.items() if value is not None}
        policy = load_policy(arguments.model, settings, attributed=True).requires_grad_(False).eval().to(device)
        policy.require_attribution()
        policy = cast("FastPolicy", policy)
    for source in track(sources, "responses", console=console, transient=True):
        name = ""
        try:
            group = source()
            name = ", ".join(group.paths) or group.key
            if arguments.question is not None:
                group = replace(group, question=arguments.question)
            yield _case(policy, group, given, arguments)
        except ValueError as error:
            left_out.append(str(error) if str(error).startswith(name) else f"{name}: {error}")


def _case(policy: FastPolicy, group: ImageGroup, given: dict[Any, str] | None, arguments: argparse.Namespace) -> Case:
    """A group's response, the policy's likeliest or the given one.

    Raises:
        ValueError: There is nothing in it to explain.
    """
    import torch

    from lightning_sal.explanations.cases import cases_of
    from lightning_sal.explanations.responses import as_rollout, response_to
    from lightning_sal.inference.responses import read_answer

    with torch.no_grad():
        prompts = policy.encode([group])
        if given is None:
            rollout = policy.sample(prompts, arguments.max_new_tokens, temperature=0)
        else:
            rollout = as_rollout(policy, response_to(group, given))
    answer = read_answer(rollout.texts[0], group, rollout.frame, rollout.look)
    (case,) = cases_of(policy, prompts, rollout, [group], [answer], arguments.seed)
    if not case.labels:
        raise ValueError(f"nothing to explain: {answer.reason or 'the response has no label'}")
    return case


def _explain(
    case: Case,
    methods: dict[str, Method],
    measures: dict[str, Measures],
    folder: Any,
    arguments: argparse.Namespace,
    covered: list[float],
) -> None:
    """Explain a case by every method, measure it and write it down."""
    from lightning_sal.explanations.faithfulness import Pictures
    from lightning_sal.explanations.measuring import ends_of, regions_of

    maps = {name: method.maps(case) for name, method in methods.items()}
    pictures, regions = Pictures(case, arguments.blur, arguments.batch_size), regions_of(case)
    ends = ends_of(pictures)
    values = {name: measures[name].add(found, pictures, regions, ends) for name, found in maps.items()}
    covered.extend(float(region.double().mean()) for region in regions if region.any())
    folder.add(case, maps, values)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
