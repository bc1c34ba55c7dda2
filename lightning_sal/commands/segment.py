"""answer photographs: masks, overlays, reasons and a gallery"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.clients import default_limit, is_endpoint
from lightning_sal.clients.options import add_endpoint, check_models, settings_of, whole
from lightning_sal.errors import UsageError
from lightning_sal.files.writing import numbered
from lightning_sal.internals.gpus import device
from lightning_sal.internals.hub import weights
from lightning_sal.internals.importing import importing
from lightning_sal.internals.shell import typed
from lightning_sal.paths import Paths
from lightning_sal.tiny.notice import EXAMPLES, is_drawn, notice

if TYPE_CHECKING:
    from lightning_sal.inference.base import BasePredictor
    from lightning_sal.inference.responses import Prediction
    from lightning_sal.pages.answer_folder import AnswerFolder
    from lightning_sal.samples import ImageGroup

Source = tuple[str, tuple[str, ...]]  # task, and the files of one group


def main(argv: list[str]) -> int:
    """Answer every photograph that the paths name, and write what comes out as it comes.

    Returns:
        0 where all are answered, 1 where some could not be.
    """
    arguments = _parser().parse_args(argv)
    check_models([arguments.model], arguments)
    if arguments.max_new_tokens is None:
        arguments.max_new_tokens = default_limit(arguments.model)
    if arguments.maps and is_endpoint(arguments.model):
        raise UsageError(
            f"--maps needs the weights of a model, and {arguments.model} is behind an endpoint: leave it out"
        )
    sources = _sources(arguments.paths, arguments.task, arguments.question)

    with importing():
        from lightning_sal.pages.answer_folder import AnswerFolder

    settings = {
        "task": ", ".join(dict.fromkeys(task for task, _ in sources)),
        "question": arguments.question,
        "model": arguments.model,
        "base_url": arguments.base_url,
        "segmenter": arguments.segmenter,
        "max_new_tokens": arguments.max_new_tokens,
        "max_pixels": arguments.max_pixels,
        "dtype": arguments.dtype,
        "maps": arguments.maps or None,
    }
    folder = AnswerFolder(arguments.out, settings, arguments.overwrite, _notice(sources, arguments) or "")
    waiting = [source for source in sources if not folder.holds(*source)]
    if len(waiting) < len(sources):
        print(f"{len(sources) - len(waiting)} of {len(sources)} are answered there already: {arguments.out}")
    unanswered: list[str] = []
    missing: list[str] = []
    if waiting:
        _answer(waiting, folder, arguments, unanswered, missing)
    page = folder.finish(unanswered)
    for line in unanswered:
        print(f"not answered: {line}", file=sys.stderr)
    if missing:
        some = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        print(f"no mask found for {len(missing)} expression{'s' * (len(missing) > 1)}: {some}")
    print(f"{len(sources) - len(unanswered)} of {len(sources)} answered: open {page}")
    for line in _about_the_model(sources, arguments):
        print(line)
    return int(bool(unanswered))


def _about_the_model(sources: Sequence[Source], arguments: argparse.Namespace) -> Iterator[str]:
    """What to know of the embedded models, and the same call with others; nothing where none of them answered."""
    if notice(arguments.model, arguments.segmenter if _segments(sources) else "none") is None:
        return
    line = _notice(sources, arguments)
    if line:
        yield line
    if is_endpoint(arguments.model):  # the line names what it lacks
        return
    out = next(path for name in numbered(arguments.out.name) if not (path := arguments.out.with_name(name)).exists())
    task = ("--task", arguments.task) if arguments.task else ()
    question = ("--question", arguments.question) if arguments.question else ()
    real = ("--model", Paths().policy, *(("--segmenter", Paths().segmenter) if _segments(sources) else ()))
    command = typed("lightning-sal", "segment", *(arguments.paths or ["FOLDER"]), *task, *question, *real, "--out", out)
    yield f"With another model{' on your photographs' * (line is None)}: {command}"


def _notice(sources: Sequence[Source], arguments: argparse.Namespace) -> str | None:
    """What to know of the embedded models where one answers a photograph; None where none does."""
    if all(is_drawn(file) for _, files in sources for file in files):
        return None
    return notice(arguments.model, arguments.segmenter if _segments(sources) else "none")


def _segments(sources: Sequence[Source]) -> bool:
    """Whether a segmenter is asked for anything."""
    from lightning_sal.tasks import get_task

    return any(get_task(task).prompt_type for task, _ in sources)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sal segment",
        description="Say what stands out in photographs, and where: masks, overlays with each expression in the colour of "
        "its mask, predictions.jsonl with the reasoning, and a gallery, index.html, that opens offline; for sis also COCO "
        "json. The same call goes on where it was stopped. Without PATH it answers the scenes that the package ships.",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="image files, folders (with all folders below), or quoted patterns as 'photos/**/*.jpg'; for cosod each "
        "folder that holds images is a group, and files named singly are one group together",
    )
    parser.add_argument(
        "--task",
        help="sod (the default), sis, cosod, or your own as FILE.py:NAME; without PATH, all that have examples",
    )
    parser.add_argument(
        "--model",
        type=weights,
        default="tiny",
        help="the policy: tiny (which knows the procedural scenes alone), a folder, a hub name, a checkpoint file, a folder "
        "of adapters, or openai:NAME or gemini:NAME for one behind an endpoint",
    )
    parser.add_argument("--question", help="what is asked of every photograph beside the task's instruction")
    parser.add_argument(
        "--segmenter",
        type=weights,
        help="an EVF-SAM2 or a SAM 3, folder or hub name; a .pt or .safetensors file of SAM2, for boxes and points; or your "
        "own as FILE.py:NAME; by default the embedded small ones",
    )
    parser.add_argument(
        "--maps",
        action="store_true",
        help="show in the gallery where each word, sentence and answer came from: attribution maps over the photograph, for "
        "two more passes over each response",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/segment"), help="by default %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="delete the answers that are in the folder first")
    parser.add_argument(
        "--batch-size",
        type=whole(1),
        default=4,
        help="groups answered together, and requests to an endpoint at once; %(default)s",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=whole(1),
        help="limit of a response; 512, or behind an endpoint 2048, thoughts included",
    )
    parser.add_argument("--max-pixels", type=whole(1), help="most pixels of an image that the policy sees")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the policy's frozen weights")
    parser.add_argument("--device", type=device, help="as torch names it, by default cuda where there is one")
    add_endpoint(parser)
    return parser


def _answer(
    waiting: Sequence[Source],
    folder: AnswerFolder,
    arguments: argparse.Namespace,
    unanswered: list[str],
    missing: list[str],
) -> None:
    """Answer some groups into a folder, a batch at a time; each that cannot be, and each expression without a mask, adds its
    line."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with console.status(f"loading {arguments.model}"):
        predictor = _load(arguments)
    predictor.require_fit({task for task, _ in waiting})
    predictor.require_explained(arguments.maps)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("answers", total=len(waiting))
            for start in range(0, len(waiting), arguments.batch_size):
                part = waiting[start : start + arguments.batch_size]
                groups = list(_read(part, arguments.question, unanswered))
                for prediction in answered(predictor, groups, unanswered, explained=arguments.maps):
                    folder.add(prediction)
                    missing += _without_mask(prediction)
                progress.advance(bar, len(part))
    except UsageError:  # an endpoint answers no more: what it has answered is there to look at
        folder.finish(unanswered)
        raise
    finally:
        if predictor.took is not None:
            print(predictor.took)


def _without_mask(prediction: Prediction) -> list[str]:
    """The expressions of an answer for which the segmenter found no pixel in any of its images, with the first file and the
    presence score, of several images the highest."""
    from lightning_sal.pages.outlines import presence_note

    found = [[bool(mask.any()) for mask in masks] for masks in prediction.prompt_masks or ()]
    missing = [number for number, of_images in enumerate(zip(*found, strict=True)) if not any(of_images)]
    scores = [[of_image[number].item() for of_image in prediction.presence or ()] for number in missing]
    return [
        f'"{prediction.expressions[number]}" in {prediction.group.paths[0]}{presence_note(of_images)}'
        for number, of_images in zip(missing, scores, strict=True)
    ]


def _load(arguments: argparse.Namespace) -> BasePredictor:
    with importing():
        from lightning_sal.inference.predictor import load_predictor

        if not is_endpoint(arguments.model):
            from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: F401 (which the policy loads)
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()  # there is one of ours
    return load_predictor(
        arguments.model,
        arguments.segmenter,
        device=arguments.device,
        max_new_tokens=arguments.max_new_tokens,
        reading=arguments.reading,
        explained=arguments.maps,
        **settings_of(arguments.model, arguments),
        **({"concurrency": arguments.batch_size} if is_endpoint(arguments.model) else {}),
    )


def answered(
    predictor: BasePredictor, groups: Sequence[ImageGroup], unanswered: list[str], *, explained: bool = False
) -> list[Prediction]:
    """The predictions for some groups; one that cannot be answered adds its line and leaves the others be."""
    import torch

    try:
        found = predictor.predict_each(groups, explained=explained)
    except torch.OutOfMemoryError as error:
        raise MemoryError("out of memory: set --batch-size or --max-pixels lower, or --dtype bfloat16") from error
    predictions = []
    for group, each in zip(groups, found, strict=True):
        if not isinstance(each, ValueError):
            predictions.append(each)
            continue
        reason = str(each)
        unanswered.append(reason if reason.startswith(group.paths[0]) else f"{group.paths[0]}: {reason}")
    return predictions


def _sources(paths: Sequence[str], task: str | None, question: str | None) -> list[Source]:
    """The groups that the paths name, or those that the package ships."""
    from lightning_sal.datasets.photographs import find_groups
    from lightning_sal.tasks import SOD, TASKS, load_task

    try:
        shipped = [name for name in TASKS if (EXAMPLES / name).is_dir()]
        tasks = [load_task(task).name] if task else [SOD.name] if paths else shipped
        if asking := [name for name in tasks if TASKS[name].has_question and not question]:
            raise UsageError(f"{asking[0]} answers a question about each photograph: give --question")
        return [(name, group) for name in tasks for group in find_groups(paths or [str(EXAMPLES / name)], name)]
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _read(sources: Sequence[Source], question: str | None, unanswered: list[str]) -> Iterator[ImageGroup]:
    """The groups whose files can be read; each other one adds its line."""
    from lightning_sal.datasets.photographs import read_group

    for task, files in sources:
        try:
            yield replace(read_group(files, task), question=question or "")
        except ValueError as error:
            unanswered.append(str(error))
