"""the recipe's sets (SFT, RL, interleaved SFT) from one JSONL, no image in two of them"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sal.datasets.splitting import Split

ORDER = ("sft", "rl", "isr", "val")
DESCRIPTION = """\
Share the lines of a JSONL of annotated responses out, task by task, among sft.jsonl (supervised fine-tuning), rl.jsonl
(reinforcement learning), isr.jsonl (the SFT steps that are interleaved with it) and val.jsonl. Every line goes into at
most one file, and no image into two: images are the same where the bytes of their files are, and lines that share one,
as groups of CoSOD do, stay together. So isr.jsonl holds no image of rl.jsonl, and none of sft.jsonl either. Lines
without masks go to sft.jsonl or isr.jsonl alone, since rewards and metrics need masks.
"""
EPILOG = """\
A size is a share of each task's lines (0.33), a number of lines a task (1800), or sod=2640,sis=2467,cosod=1262. The
recipe's are --sft sod=2640,sis=2467,cosod=1262 --rl 1800 --isr 1200. The draw depends on the seed and the images, not on
the order of lines; a new line moves few of the others.
"""


def main(argv: list[str]) -> int:
    """Write the sets into a new folder and print how many lines and images each holds."""
    parser = argparse.ArgumentParser(prog="lightning-sal split", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("source", type=Path, help="JSONL of annotated responses, of one task or several")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, new or empty")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another draw; by default 0")
    parser.add_argument("--rl", metavar="SIZE", default="0.33", help="of rl.jsonl; by default 0.33")
    parser.add_argument("--isr", metavar="SIZE", default="0.22", help="of isr.jsonl; by default 0.22")
    parser.add_argument("--val", metavar="SIZE", default="0", help="of val.jsonl; by default 0")
    parser.add_argument("--sft", metavar="SIZE", help="of sft.jsonl; by default what the others leave")
    arguments = parser.parse_args(argv)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise FileExistsError(f"{arguments.out}: there is something already, and it is not overwritten")

    from rich.console import Console
    from rich.progress import track

    from lightning_sal.datasets.splitting import read_lines_to_split, read_size, sample_of, split

    given = {name: getattr(arguments, name) for name in ORDER}
    sizes = {name: read_size(text) for name, text in given.items() if text is not None}
    lines = read_lines_to_split(arguments.source)
    shown = track(lines, "images", console=Console(stderr=True), transient=True)
    found = split([sample_of(line) for line in shown], sizes, arguments.seed)
    _write(arguments.out, found, arguments.source.parent)
    Console(width=None if sys.stdout.isatty() else 120).print(_table(found))
    for note in _notes(found):
        print(note)
    print(f"{arguments.out}: {', '.join(f'{name}.jsonl' for name in ORDER if found.sets[name])}")
    return 0


def _write(folder: Path, found: Split, source: Path) -> None:
    """The files of the sets that hold anything, in a folder that is whole once it stands under its name."""
    from lightning_sal.datasets.jsonl import moved, write_lines

    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".split-", dir=folder.parent) as held:
        whole = Path(held) / folder.name
        whole.mkdir()
        for name, samples in found.sets.items():
            if samples:
                fields = (moved(sample.line.fields, source, folder) for sample in samples)
                write_lines(whole / f"{name}.jsonl", fields)
        whole.rename(folder)


def _table(found: Split) -> Any:
    """A Rich table, one row a set and task."""
    from rich.table import Table

    grid = Table()
    for head in ("set", "task", "lines", "asked for", "images"):
        grid.add_column(head, justify="left" if head in ("set", "task") else "right")
    for name in ORDER:
        for task, asked in sorted(found.asked[name].items()):
            samples = [sample for sample in found.sets[name] if sample.task == task]
            images = set[str]().union(*(sample.images for sample in samples))
            if samples or asked:
                grid.add_row(name, task, str(len(samples)), str(asked), str(len(images)))
    return grid


def _notes(found: Split) -> list[str]:
    """What the table leaves open: why numbers are not those asked for, and what is in no file."""
    samples = [sample for group in (*found.sets.values(), found.unused) for sample in group]
    notes = []
    if found.bound:
        notes.append(
            f"{sum(found.bound)} lines share images with others and stay together, in {len(found.bound)} groups of up to "
            f"{found.bound[0]} lines: sets may miss the numbers asked for by as much."
        )
    if bare := sum(not sample.has_masks for sample in samples):
        notes.append(f"{bare} lines have no masks, which RL and validation need: they may be in sft and isr alone.")
    if found.unused:
        notes.append(f"{len(found.unused)} lines are in no file, because no set asked for them.")
    return notes
