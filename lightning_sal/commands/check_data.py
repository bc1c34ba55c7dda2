"""name every file of a dataset that cannot be read"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.errors import printable

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_sal.clients.request_check import RequestCheck
    from lightning_sal.datasets import Layout, Record
    from lightning_sal.datasets.layouts import Candidate
    from lightning_sal.policy.prompt_check import PromptCheck
    from lightning_sal.samples import ImageGroup

PEEKED_MASKS = 8

Samples = tuple[str, ...]  # a task, and the digests of the images


def main(argv: list[str]) -> int:
    """Reads every sample of a folder or a JSONL and prints a line for each fault.

    Args:
        argv: The arguments after the command's name.

    Returns:
        0 where all is well, 1 where anything is bad.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-sal check-data",
        description="Name every missing, truncated or undecodable file, every image without mask and mask without "
        "image, and, by file and line, every malformed line or response, every box that is reversed, empty, no numbers or "
        "outside of its image, every point outside of its image or box, every response with another number of instances "
        "than there are, and every line that repeats the task and images of another. Exits with 1 where there is any.",
    )
    parser.add_argument("path", type=Path, help="folder of a benchmark, COCO json, records, table, or a JSONL")
    parser.add_argument(
        "--task",
        help="sod, sis, cosod, vqa, perception, detection, counting, or your own as FILE.py:NAME, where the path alone does "
        "not tell",
    )
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="look at what the model of this config would be shown, too, and ask it nothing: tokens of prompts, or, behind "
        "an endpoint, size and price of requests; further options are then those of `lightning test`",
    )
    arguments, rest = parser.parse_known_args(argv)
    if rest and not arguments.config:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    shown = (
        Shown.of([word for file in arguments.config for word in ("--config", file)] + rest)
        if arguments.config
        else None
    )
    try:
        records = _records(arguments.path, arguments.task)
    except (OSError, ValueError) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    strays = [photo for record in records for photo in record.photographs if photo.stray]
    for stray in strays:
        print(f"{stray.fault}, left out")
    records = [record for record in records if not all(photo.stray for photo in record.photographs)]
    faults, bare = len(strays), 0
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    seen: dict[Samples, str] = {}
    for number, record in enumerate(records, 1):
        unmasked = all(photo.annotation is None for photo in record.photographs)
        bare += unmasked and (record.response is not None or _has_boxes_alone(record))
        group = _group(record)
        counts += _counts(record, group)
        kinds += _kinds(record, group)
        for fault in (*_faults(record, group, seen), *(shown.faults(record, group) if shown and group else ())):
            faults += 1
            print(printable(fault))
        if sys.stderr.isatty():
            print(f"\r{number} of {len(records)}", end="\n" if number == len(records) else "", file=sys.stderr)
    for warning in _warnings(kinds):
        print(f"{arguments.path}: warning: {warning}")
    for line in shown.check.summary() if shown else ():
        print(f"{arguments.path}: {printable(line)}")
    tasks = ", ".join(sorted({record.task for record in records if record.task})) or "no task"
    images = sum(len(record.photographs) for record in records)
    samples = f"{len(records)} samples ({tasks})" + (f", {bare} without masks" if bare else "")
    samples += "".join(f", {count} {what}" for what, count in counts.items())
    print(f"{arguments.path}: {samples}, {images} images, {faults or 'no'} faults")
    return int(faults > 0)


@dataclass(frozen=True)
class Shown:
    """What the model of a config would be shown.

    Args:
        check: Looks at it.
        group_size: Photographs of a sample of several, at most.
        reasoning: Whether it is asked to reason.
    """

    check: RequestCheck | PromptCheck
    group_size: int
    reasoning: bool

    @classmethod
    def of(cls, argv: list[str]) -> Shown:
        """That of a config and options, as `lightning test` takes them."""
        from lightning_sal.clients.endpoint_config import EndpointConfig
        from lightning_sal.clients.request_check import RequestCheck
        from lightning_sal.configs.reading import GROUP_SIZE, model_of, read_config
        from lightning_sal.policy.prompt_check import PromptCheck

        given = read_config(argv)
        config, data = model_of(given), given["data"].get("init_args", {})
        if isinstance(config, EndpointConfig):
            check: RequestCheck | PromptCheck = RequestCheck(config, given["model"]["init_args"]["max_new_tokens"])
        else:
            check = PromptCheck(config)
        return cls(check, data.get("group_size") or GROUP_SIZE, data.get("reasoning", True))

    def faults(self, record: Record, group: ImageGroup) -> Iterator[str]:
        """A line for all of a sample that the model would refuse."""
        from lightning_sal.datasets.cosod import chunks

        alone = len(record.photographs) == 1
        for part in [record] if alone else chunks([record], self.group_size):
            asked = replace(group if alone else part.read(), reasoning=self.reasoning)
            yield from self.check.faults(record.source or part.key, asked)


def _records(path: Path, task: str | None) -> list[Record]:
    """All samples below `path`, those of every split.

    Raises:
        FileNotFoundError: There is no such path.
        ValueError: The task is unknown, or `path` holds nothing of it.
    """
    from lightning_sal.datasets import jsonl_records, layout_of
    from lightning_sal.datasets.sources import in_layout
    from lightning_sal.tasks import TASKS, get_task, load_task

    known = None if task is None else load_task(task)
    if path.suffix == ".jsonl" and not any(in_layout(each, path) for each in ([known] if known else TASKS.values())):
        return jsonl_records(path)
    known = known or get_task(_infer_task(path))
    layout = layout_of(known)
    records = [record for candidate in layout.candidates(path) for record in candidate.records()]
    records = records or layout.records(path)  # which says what was looked for
    return [replace(record, task=known.name) for record in records]


def _infer_task(path: Path) -> str:
    """The one task whose layout fits; flat pairs of image and mask are SIS where the masks show colours, else SOD."""
    from lightning_sal.datasets import layout_of
    from lightning_sal.datasets.layouts import contents
    from lightning_sal.tasks import TASKS

    layouts = {name: layout_of(task) for name, task in TASKS.items() if task.layout}
    layouts = {name: layout for name, layout in layouts.items() if not layout.by_name}
    fitting = {name: found for name, layout in layouts.items() if (found := _candidates(layout, path))}
    if not fitting and not path.exists():
        raise FileNotFoundError(f"{path}: no such folder")
    if not fitting:
        looked_for = "; ".join(f"{task}: {layout.looked_for}" for task, layout in layouts.items())
        raise ValueError(f"{path}: no known layout; looked for {looked_for}; found {contents(path)}")
    if any(TASKS[name].several for name in fitting):  # whose groups might be datasets of the others, too
        fitting = {name: found for name, found in fitting.items() if TASKS[name].several or not found[0].deep}
    same_masks = (
        len({tuple(mask for candidate in found for mask in candidate.masks) for found in fitting.values()}) == 1
    )
    kinds = {TASKS[name].masks_per_image: name for name in fitting}
    if len(fitting) == 2 and set(kinds) == {1, None} and same_masks:  # one mask an image, or one colour an instance
        masks = [mask for candidate in fitting[kinds[None]] for mask in candidate.masks[:PEEKED_MASKS]]
        return kinds[None if any(_coloured(mask) for mask in masks) else 1]
    if len(fitting) > 1:
        raise ValueError(f"{path}: fits the tasks {', '.join(fitting)}; say which with --task")
    return next(iter(fitting))


def _candidates(layout: Layout, path: Path) -> list[Candidate]:
    try:
        return layout.candidates(path)
    except FileNotFoundError:  # which may be the name of a split of another layout
        return []


def _coloured(mask: Path) -> bool:
    from lightning_sal.datasets.images import UnreadableSample, shows_colour

    try:
        return shows_colour(mask)
    except UnreadableSample:
        return False


def _missing(record: Record, group: ImageGroup) -> Iterator[str]:
    """What a sample without a response lacks, without which nothing can be learnt from it, nor measured."""
    from lightning_sal.tasks import get_task

    if record.response is None and not (group.question and _has_boxes_alone(record)):
        try:
            get_task(record.task).require(group)
        except ValueError as error:
            yield f"{record.source}: {error}" if record.source else str(error)


def _has_boxes_alone(record: Record) -> bool:
    """Whether the boxes of a sample without masks serve the rewards, though not what its task is measured by."""
    from lightning_sal.tasks import TASKS, BoxTask

    task = TASKS.get(record.task)
    return isinstance(task, BoxTask) and task.masks_per_image != 0 and record.boxes is not None


def _group(record: Record) -> ImageGroup | None:
    from lightning_sal.datasets import UnreadableSample

    try:
        return record.read()
    except UnreadableSample:  # named where its faults are
        return None


def _counts(record: Record, group: ImageGroup | None) -> Counter[str]:
    """What is worth knowing of a sample beside its faults, by what it is, and how often it occurs there."""
    from lightning_sal.datasets import UnreadableSample
    from lightning_sal.tasks import TASKS, BoxTask

    counts: Counter[str] = Counter()
    for photograph, boxes in zip(record.photographs, record.boxes or (), strict=False):  # none where there are no boxes
        try:
            size = photograph.size()
        except UnreadableSample:
            continue
        kinds = boxes.kinds(size)
        counts["boxes clipped to their image"] += boxes.clipped(size)
        counts["boxes outside of their image"] += kinds["outside of the image"]
        counts["boxes reversed"] += kinds["reversed"]
    if group is not None and isinstance(TASKS.get(group.task), BoxTask):
        targets = _targets(group)
        nothing = targets == 0 or (targets is None and group.masks is not None and not any(map(_any, group.masks)))
        counts["targets"] += targets or 0
        counts["questions without a target"] += nothing
        counts["points outside of their boxes"] += _points_outside(group)
    return counts


def _kinds(record: Record, group: ImageGroup | None) -> Counter[str]:
    """How the mask files of a sample look, and how many there are, by the kind of ground truth that they are read as."""
    from lightning_sal.datasets.images import shows_colour
    from lightning_sal.datasets.sis import ColouredFile
    from lightning_sal.datasets.sod import MaskFile

    kinds: Counter[str] = Counter()
    for photograph, masks in zip(record.photographs, (group and group.masks) or (), strict=False):
        if isinstance(file := photograph.annotation, MaskFile):
            kinds.update({"regions": 1, "coloured regions": shows_colour(file.path)})
        elif isinstance(file, ColouredFile):
            kinds.update({"instances": 1, "plain instances": len(masks) < 2 and not shows_colour(file.path)})
    return kinds


def _warnings(kinds: Counter[str]) -> Iterator[str]:
    """A line where masks are hardly what the task needs."""
    if count := kinds["coloured regions"]:
        yield (
            f"{count} of {kinds['regions']} masks are in colour, as those of instances are, and all colours of a mask are "
            "taken for one region: --task sis tells them apart"
        )
    if (count := kinds["plain instances"]) and count == kinds["instances"]:
        yield (
            f"all {count} masks are plain black and white, one instance each: instances are told apart by their colours; "
            "--task sod takes regions"
        )


def _targets(group: ImageGroup) -> int | None:
    """How many objects are asked for, where that is known."""
    from lightning_sal.tasks.boxes import true_count

    try:
        return true_count(group)
    except ValueError:
        return None


def _any(mask: Tensor) -> bool:
    return bool(mask.any())


def _points_outside(group: ImageGroup) -> int:
    """How many points lie outside of the boxes of their objects, where a sample states both."""
    from lightning_sal.datasets.boxes import outside_of_their_boxes
    from lightning_sal.tasks import TASKS, BoxTask

    if not isinstance(TASKS.get(group.task), BoxTask) or group.boxes is None or group.points is None:
        return 0
    return sum(map(outside_of_their_boxes, group.boxes, group.points))


def _faults(record: Record, group: ImageGroup | None, seen: dict[Samples, str]) -> Iterator[str]:
    """One line for each fault of a sample.

    Args:
        record: The sample.
        group: As it was read; None where it cannot be.
        seen: Task and images -> where they stood first, of the annotated samples before this one, which is added.
    """
    from lightning_sal.datasets.splitting import digest
    from lightning_sal.tasks import get_task

    if group is None:
        yield from record.problems()
    else:
        yield from _missing(record, group)
        if strays := _points_outside(group):
            yield f"{record.source or record.key}: {strays} points outside of their boxes"
    if record.response is None:
        return
    task = get_task(record.task)
    answer = task.parse(record.response)
    if answer.reason:
        yield f"{record.source}: malformed response: {answer.reason}"
    if group is None:
        return
    instances = len(group.masks[0]) if group.masks and task.masks_per_image is None else None
    if instances not in (None, len(answer.labels)) and not answer.reason:
        yield f"{record.source}: {len(answer.labels)} expressions for {instances} instances"
    images = sorted(digest(photograph.path) for photograph in record.photographs)
    first = seen.setdefault((record.task, *images), record.source)
    if first != record.source:
        yield f"{record.source}: the same task and images as {first}"
