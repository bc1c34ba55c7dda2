"""annotated responses to and from the JSON of LLaMA-Factory and ms-swift; data sets to our JSONL; answers to FiftyOne"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lightning_sal.errors import UsageError, printable

if TYPE_CHECKING:
    from lightning_sal.datasets.jsonl import Converted

FIFTYONE = "fiftyone"
SUFFIXES = {"sharegpt": (".json", ".jsonl"), "jsonl": (".jsonl",)}
DESCRIPTION = """\
Convert a JSONL of annotated responses to conversations that LLaMA-Factory and ms-swift read, or such conversations to
the JSONL. Paths are brought to the folder of the target. Task and masks travel in a column of their own, so that there
and back nothing is lost. Where a line cannot be converted, it is named with the reason and nothing is written.
Records of visual question answering (image, question, answer, boxes) become the JSONL too, with boxes in pixels; so do
COCO json, with --task detection, tables of counts, such as PixMo-Count, and the perception data that check-data knows:
records with `problem` and `solution`, ReasonSeg, references of RefCOCO and gRefCOCO. Images that a parquet table holds are
written into a folder NAME_images beside the target. What segment, predict or test
has predicted becomes a dataset of FiftyOne.
"""


def main(argv: list[str]) -> int:
    """Convert a file; prints a line for each line that cannot be converted.

    Returns:
        0 where the target was written, 1 where lines stood against it.
    """
    parser = argparse.ArgumentParser(prog="lightning-sal convert", description=DESCRIPTION)
    parser.add_argument(
        "source", type=Path, help="the file to read; for fiftyone a folder that segment or PredictionWriter has written"
    )
    parser.add_argument(
        "target",
        type=Path,
        help="the new file; conversations are an array in a .json and one a line in a .jsonl; for fiftyone the name of the "
        "new dataset",
    )
    parser.add_argument("--to", required=True, choices=(*SUFFIXES, FIFTYONE), help="what the target shall be")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="for fiftyone: what test or score has written of the same images, whose values stand beside each",
    )
    parser.add_argument(
        "--task",
        help="of conversations from elsewhere: sod, sis, cosod, or your own as FILE.py:NAME; by default told from each "
        "answer and its images. Of COCO json: detection",
    )
    parser.add_argument(
        "--boxes",
        metavar="pixels|normalised|840",
        help="of records of VQA or with `solution`, and of conversations from elsewhere: the unit of their boxes, where "
        "neither they nor the name of their file say it; a number is the side of the square to which images were squashed",
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="of records of VQA, COCO json and tables: the folder of the images; by default that of the file or below",
    )
    parser.add_argument("--skip", action="store_true", help="write the other lines where some cannot be converted")
    arguments = parser.parse_args(argv)
    target = arguments.target
    if arguments.to == FIFTYONE:
        return _to_fiftyone(arguments.source, str(target), arguments.results)
    if arguments.results:
        raise UsageError("--results belongs to --to fiftyone")
    if target.suffix not in SUFFIXES[arguments.to]:
        raise ValueError(f"{target}: name a file that ends in {' or '.join(SUFFIXES[arguments.to])}")
    if target.exists():
        raise FileExistsError(f"{target}: there is such a file already, and it is not overwritten")

    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".convert-", dir=target.parent) as held:
        return _convert(arguments, Path(held))


def _to_fiftyone(source: Path, name: str, results: Path | None) -> int:
    from lightning_sal.evaluation.fiftyone import to_fiftyone

    dataset = to_fiftyone(source, name, results)
    print(f"FiftyOne has the dataset {name}, {len(dataset)} images: {shlex.join(['fiftyone', 'app', 'launch', name])}")
    return 0


def _convert(arguments: argparse.Namespace, held: Path) -> int:
    """As `main`, with a folder on the disk of the target in which its files become whole."""
    source, target = arguments.source, arguments.target
    lines = _converted(arguments, held)
    results = [line.result for line in lines if line.result is not None]
    refused = [line for line in lines if line.fault]
    for line in refused:
        print(printable(f"{line.source}: {line.fault}"), file=sys.stderr)
    if not results or (refused and not arguments.skip):
        hint = "--skip writes the others" if results else "none is left"
        print(f"{source}: {len(refused)} of {len(lines)} lines cannot be converted; {hint}", file=sys.stderr)
        return 1
    _write(target, results, held)
    print(f"{target}: {len(results)} lines" + (f", {len(refused)} refused" if refused else ""))
    for what, count in Counter(what for line in lines for what in line.left).items():
        print(f"{count} lines had {printable(what)}, which has no place there")
    if arguments.to == "sharegpt":
        from lightning_sal.datasets.conversations import dataset_info

        print(f"For LLaMA-Factory, in dataset_info.json: {json.dumps(dataset_info(target))}")
    elif bare := sum(map(_lacks_masks, results)):
        print(f"{bare} lines have no masks: they serve SFT of the policy, not RL, nor the segmenter")
    return 0


def _converted(arguments: argparse.Namespace, held: Path) -> list[Converted]:
    """The lines of the source, each as a line of the target or with the reason why not; images that it holds are written."""
    from lightning_sal.datasets.coco_files import is_coco
    from lightning_sal.datasets.conversations import from_conversations, to_conversations
    from lightning_sal.datasets.counting import from_counting, is_counting
    from lightning_sal.datasets.detection import from_detection
    from lightning_sal.datasets.lines import to_lines
    from lightning_sal.datasets.perception import LAYOUT
    from lightning_sal.datasets.vision_reasoner import is_vision_reasoner, vision_reasoner_records
    from lightning_sal.datasets.vqa import from_vqa, is_vqa
    from lightning_sal.tasks import load_task

    source, folder = arguments.source, arguments.target.parent
    task = arguments.task and load_task(arguments.task).name
    if arguments.to == "sharegpt":
        return list(to_conversations(source, folder))
    if is_vqa(source):
        if arguments.boxes not in (None, "pixels", "normalised"):
            raise ValueError(f"{source}: --boxes of such records is pixels or normalised, not {arguments.boxes}")
        normalised = arguments.boxes and arguments.boxes == "normalised"
        return list(from_vqa(source, folder, arguments.images, normalised))
    unpacked = held / f"{arguments.target.stem}_images"
    if is_vision_reasoner(source):
        records = vision_reasoner_records([source], arguments.images and [arguments.images], arguments.boxes)
        return list(to_lines(records, folder, unpacked))
    if is_counting(source):
        return list(from_counting(source, folder, arguments.images, unpacked))
    if task == "detection" and is_coco(source):
        return list(from_detection(source, folder, arguments.images))
    if arguments.images:
        raise ValueError(f"{source}: --images is for records of VQA or with `solution`, COCO json and tables of counts")
    if task in (None, "perception") and LAYOUT.holds(source):
        return list(to_lines(LAYOUT.records(source), folder, unpacked))
    return list(from_conversations(source, folder, task, arguments.boxes))


def _lacks_masks(line: dict[str, Any]) -> bool:
    from lightning_sal.tasks import get_task

    return get_task(line["task"]).masks_per_image != 0 and not {"masks", "annotation"} & line.keys()


def _write(target: Path, lines: list[dict], held: Path) -> None:
    """The file, whole once it stands under its name, and before it the folders that were written for it."""
    texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    whole = "[\n" + ",\n".join(texts) + "\n]\n" if target.suffix == ".json" else "\n".join(texts) + "\n"
    folders = list(held.iterdir())
    for place in (target.with_name(folder.name) for folder in folders):
        if place.exists():
            raise FileExistsError(f"{place}: there is something already, and it is not overwritten")
    part = held / target.name
    part.write_text(whole, encoding="utf-8", errors="backslashreplace")  # JSON's own escape of what is no UTF-8
    for folder in folders:
        folder.rename(target.with_name(folder.name))
    part.rename(target)
