"""The recipe's sets from one file of annotated responses, no image in two of them.

Two images are the same where the bytes of their files are, whatever their names. Lines that share an image, directly or
by way of other lines, go into one set together. Which set is drawn by a hash of the seed and of the images alone: the
order of the lines has no part in it, and with m lines more at most about m of the others change place at each border
between two sets.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightning_sal.datasets.decoding import check_file, unreadable
from lightning_sal.datasets.jsonl import Line, read_lines
from lightning_sal.datasets.spelling import file_of

SETS = ("rl", "isr", "val", "sft")  # in the order in which they are filled
NEED_MASKS = frozenset({"rl", "val"})  # a reward and a metric compare masks; cross-entropy needs the words alone

Size = Mapping[str, float]  # task, or "" for every other -> share in [0, 1] of its lines (float), or their number (int)


@dataclass(frozen=True, slots=True)
class Sample:
    """A line with the images that it shows.

    Args:
        line: The line.
        images: Digests of its images.
    """

    line: Line
    images: frozenset[str]

    @property
    def task(self) -> str:
        return self.line.fields["task"]

    @property
    def has_masks(self) -> bool:
        return not {"masks", "annotation"}.isdisjoint(self.line.fields)

    def drawn(self, seed: int) -> tuple[str, str]:
        """Where it stands among the samples of its set: by what it holds, then, of equal ones, by its text."""
        fields = self.line.fields
        return _hash(seed, self.task, *sorted(self.images), fields["response"]), json.dumps(fields, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Split:
    """What became of the lines.

    Args:
        sets: Name of a set -> its samples, in the order in which they are written.
        unused: Samples that no set has asked for.
        asked: Set -> task -> number of lines that it should hold.
        bound: Numbers of lines of the groups, of two lines or more, that share images.
    """

    sets: dict[str, list[Sample]]
    unused: list[Sample]
    asked: dict[str, dict[str, int]]
    bound: list[int]


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    Raises:
        OSError: It is missing, or no regular file.
    """
    check_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unannotated(fields: dict[str, Any]) -> str | None:
    return None if "response" in fields else "no `response`: annotated lines alone are split"


def read_lines_to_split(path: Path) -> list[Line]:
    """The lines of an SFT JSONL, all of which must keep the format.

    Raises:
        ValueError: One does not; nothing is left out in silence.
    """
    lines = read_lines(path)
    lines = [replace(line, fault=line.fault or _unannotated(line.fields)) for line in lines]
    if bad := [line for line in lines if line.fault]:
        raise ValueError(
            f"{bad[0].source}: {bad[0].fault} ({len(bad)} such lines; `lightning-sal check-data {path}` names them all)"
        )
    return lines


def sample_of(line: Line) -> Sample:
    """The sample of a line.

    Raises:
        ValueError: An image cannot be read.
    """
    images = []
    for file in (file_of(line.path.parent, name) for name in line.fields["images"]):
        try:
            images.append(digest(file))
        except (OSError, ValueError) as error:  # a name with a NUL is an error of value
            raise ValueError(f"{line.source}: {unreadable(file, error)}") from error
    return Sample(line, frozenset(images))


def split(samples: Sequence[Sample], sizes: Mapping[str, Size], seed: int) -> Split:
    """Share samples out among the sets, task by task.

    Groups of samples that share images come in the order of their hashes, and each goes into the first set that it
    brings nearer to its size: exact for samples that share no image. What no set takes is for SFT, or, where that has
    a size too, for none.

    Args:
        samples: All of them.
        sizes: Set -> size; without one for "sft" it takes what the others leave.
        seed: Another seed, another draw.

    Raises:
        ValueError: More is asked for than there is of a task.
    """
    asked = quotas(Counter(sample.task for sample in samples), sizes)
    groups = [[samples[i] for i in group] for group in components([sample.images for sample in samples])]
    # One image speaks for its group: the least of many hashes would bring large groups to the front, and into one set.
    order = sorted(groups, key=lambda group: _hash(seed, min(image for sample in group for image in sample.images)))
    room = {name: Counter(asked[name]) for name in SETS}
    found: dict[str, list[Sample]] = {name: [] for name in (*SETS, "")}
    rest = "" if "sft" in sizes else "sft"
    for group in order:
        size = Counter(sample.task for sample in group)
        whole = all(sample.has_masks for sample in group)
        fitting = (name for name in SETS if (whole or name not in NEED_MASKS) and _nearer(room[name], size))
        name = next(fitting, rest)
        found[name] += group
        if name:
            room[name].subtract(size)
    sets = {name: sorted(group, key=lambda sample: sample.drawn(seed)) for name, group in found.items()}
    unused = sets.pop("")
    return Split(sets, unused, asked, sorted((len(group) for group in groups if len(group) > 1), reverse=True))


def quotas(counts: Mapping[str, int], sizes: Mapping[str, Size]) -> dict[str, dict[str, int]]:
    """Numbers of lines from sizes.

    Args:
        counts: Task -> number of its lines.
        sizes: As for `split`.

    Returns:
        Set -> task -> number; "sft" gets the rest where it has no size. Shares are rounded so that their sum is kept.

    Raises:
        ValueError: The sets of a task together exceed its lines, or a task is named that has none.
    """
    asked: dict[str, dict[str, int]] = {name: {} for name in SETS}
    if unknown := sorted({task for size in sizes.values() for task in size if task} - set(counts)):
        raise ValueError(f"no line of the task {unknown[0]!r}, for which a size is given; there are {sorted(counts)}")
    for task, count in sorted(counts.items()):
        total = 0.0
        for name in SETS:
            exact = max(count - total, 0) if name == "sft" else 0
            if name in sizes:
                number = sizes[name].get(task, sizes[name].get("", 0))
                exact = number * count if isinstance(number, float) else number
            asked[name][task] = round(total + exact) - round(total)
            total += exact
        if total > count + 1e-6:
            told = ", ".join(f"{name} {asked[name][task]}" for name in SETS if asked[name][task])
            raise ValueError(
                f"{task}: {round(total)} lines are asked for ({told}), and there are {count}: ask for less"
            )
    return asked


def components(images: Sequence[Iterable[str]]) -> list[list[int]]:
    """Indices of samples in groups that share images, directly or by way of others.

    Args:
        images: The images of each sample.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [(index, image) for index, shown in enumerate(images) for image in shown]
    numbers = {image: len(images) + number for number, image in enumerate(dict.fromkeys(image for _, image in edges))}
    nodes = len(images) + len(numbers)
    ends = [index for index, _ in edges], [numbers[image] for _, image in edges]
    graph = coo_array((np.ones(len(edges)), ends), shape=(nodes, nodes))
    labels = connected_components(graph, directed=False)[1][: len(images)]
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(index)
    return list(groups.values())


def read_size(text: str) -> dict[str, float]:
    """A size as it is typed: `0.33`, `1800`, or `sod=2640,sis=2467,cosod=1262`.

    Raises:
        ValueError: It is none.
    """
    size: dict[str, float] = {}
    for part in text.split(","):
        task, equals, number = part.strip().rpartition("=")
        try:
            value: float = int(number) if number.isdecimal() else float(number)
        except ValueError:
            value = math.nan
        most = 1 if isinstance(value, float) else math.inf
        if bool(task) != bool(equals) or task in size or not 0 <= value <= most:
            raise ValueError(f"{text!r} is no size: give a share as 0.33, a number as 1800, or sod=2640,sis=2467")
        size[task] = value
    return size


def _nearer(room: Mapping[str, int], size: Mapping[str, int]) -> bool:
    """Whether a set with so much room comes nearer to what it should hold by taking a group of that size."""
    return sum(abs(room[task] - size[task]) for task in size) < sum(abs(room[task]) for task in size)


def _hash(seed: int, *parts: Any) -> str:
    return hashlib.sha256("\0".join(map(str, (seed, *parts))).encode()).hexdigest()
