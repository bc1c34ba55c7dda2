"""questions "find all <category>" with masks, boxes and points, from a COCO json"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lightning_sal.errors import printable
from lightning_sal.files.writing import naming

if TYPE_CHECKING:
    from lightning_sal.datasets.questions import Question

DESCRIPTION = """\
Write a JSONL of the task perception from a COCO json, instances or panoptic: for each image and each category that occurs
on it at least twice, the question "all <category>", with the union of its instances as the mask, and a box and an inner
point for each. The masks are PNGs in a folder beside the JSONL. What is drawn depends on the seed, the names of the files
and the categories, not on the order of the json. Of a category of which a crowd is annotated on an image, nothing is asked
there. The evaluation on COCONut of Dr. Seg has 665 such questions: --limit 665.
"""


def main(argv: list[str]) -> int:
    """Write the JSONL and its masks; prints a line for each question whose files cannot be read.

    Returns:
        0 where the target was written, 1 where files stood against it.
    """
    parser = argparse.ArgumentParser(prog="lightning-sal questions", description=DESCRIPTION)
    parser.add_argument("source", type=Path, help="COCO json with `categories`: instances or panoptic")
    parser.add_argument("target", type=Path, help="the new .jsonl; its masks lie beside it, in a folder NAME_masks")
    parser.add_argument("--images", type=Path, help="the folder of the photographs; by default found around the source")
    parser.add_argument(
        "--segments",
        type=Path,
        help="of a panoptic json: the folder of its PNGs; by default that of its name beside it, or its own",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another draw; by default 0")
    parser.add_argument("--limit", type=int, metavar="N", help="how many questions in all; by default all there are")
    parser.add_argument(
        "--least", type=int, default=2, metavar="N", help="instances of a category on an image; by default 2"
    )
    parser.add_argument(
        "--no-target",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the questions for a category that is absent, so that [] is right; by default 0.0",
    )
    parser.add_argument("--skip", action="store_true", help="write the other questions where some cannot be read")
    arguments = parser.parse_args(argv)
    target, masks = arguments.target, arguments.target.with_name(f"{arguments.target.stem}_masks")
    if target.suffix != ".jsonl":
        raise ValueError(f"{target}: name a file that ends in .jsonl")
    for place in (target, masks):
        if place.exists():
            raise FileExistsError(f"{place}: there is something already, and it is not overwritten")

    from rich.console import Console
    from rich.progress import track

    from lightning_sal.datasets.jsonl import write_lines
    from lightning_sal.datasets.questions import QuestionSource

    source = QuestionSource(arguments.source, arguments.images, arguments.segments)
    questions = source.draw(arguments.seed, arguments.limit, arguments.least, arguments.no_target)
    if not questions:
        raise ValueError(f"{arguments.source}: no category occurs {arguments.least} times on an image")
    target.parent.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    console = Console(stderr=True)
    shown = track(questions, "masks", console=console, transient=True, disable=not console.is_terminal)
    with naming(target.parent, target.name), TemporaryDirectory(prefix=".questions-", dir=target.parent) as held:
        folder = Path(held) / masks.name
        folder.mkdir()
        lines = list(_lines(shown, folder, target, faults))
        for fault in faults:
            print(printable(fault), file=sys.stderr)
        if faults and not (lines and arguments.skip):
            hint = "--skip writes the others" if lines else "none is left"
            print(
                f"{arguments.source}: {len(faults)} of {len(questions)} questions cannot be read; {hint}",
                file=sys.stderr,
            )
            return 1
        write_lines(Path(held) / target.name, lines)
        folder.rename(masks)
        (Path(held) / target.name).rename(target)
    empty = sum(not line["boxes"][0] for line in lines)
    images = len({line["images"][0] for line in lines})
    print(f"{target}: {len(lines)} questions on {images} images, {empty} of them for what is not there")
    if source.crowds:
        print(f"{source.crowds} annotations are marked iscrowd; of these categories nothing is asked on their images")
    if arguments.limit and len(questions) < arguments.limit:
        print(f"{arguments.limit} questions were asked for, and there are no more")
    return 0


def _lines(questions: Iterable[Question], folder: Path, target: Path, faults: list[str]) -> Iterator[dict[str, Any]]:
    """The line of each question, whose mask is written; or why there is none.

    Args:
        questions: The questions.
        folder: Where the masks are written.
        target: The JSONL, beside which that folder will lie.
        faults: Lines are added to it.
    """
    import numpy as np
    from PIL import Image

    from lightning_sal.datasets.images import UnreadableSample
    from lightning_sal.datasets.questions import box_of, inner_point

    for number, question in enumerate(questions):
        try:
            instances = question.read()
        except UnreadableSample as error:
            faults.append(f"{question.source}: {error}")
            continue
        name = f"{number:06}.png"
        union = instances.any(0).numpy()
        Image.fromarray(union.astype(np.uint8) * 255).save(folder / name)
        yield {
            "task": "perception",
            "images": [Path(os.path.relpath(question.image.resolve(), target.parent.resolve())).as_posix()],
            "masks": [f"{target.stem}_masks/{name}"],
            "question": question.text,
            "boxes": [[box_of(mask) for mask in instances]],
            "points": [[inner_point(mask) for mask in instances]],
        }
