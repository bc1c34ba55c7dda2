"""Samples held out of a training set, by a hash of the seed and of their photographs' names.

A sample keeps its side when others are added; those that share a photograph, directly or by way of others, are on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lightning_sal.datasets.records import Record
from lightning_sal.datasets.splitting import components


def hold_out(records: Sequence[Record], share: float, seed: int) -> list[bool]:
    """Which samples are held out: about a share of them, and of each task at least one, but never all.

    A sample with a known fault is never held out.

    Args:
        records: N samples to train on, of one task or several; one a group for CoSOD, which stays whole.
        share: In (0, 1).
        seed: Another seed, another draw.

    Returns:
        N flags.

    Raises:
        ValueError: A task has a single sample, or all of its samples show one photograph.
    """
    sound = [i for i, record in enumerate(records) if not any(photo.fault for photo in record.photographs)]
    groups = [[sound[i] for i in group] for group in components([_files(records[index]) for index in sound])]
    drawn = [_drawn(seed, min(_name(records[index]) for index in group)) for group in groups]
    held = [value < share for value in drawn]
    for task in dict.fromkeys(record.task for record in records):
        own = [number for number, group in enumerate(groups) if any(records[i].task == task for i in group)]
        if len(own) < 2:
            raise ValueError(
                f"{task}: {len(own)} sample with photographs of its own is too few to hold one out: give 2 or more, or name "
                "folders to validate and test on: data.init_args.val, data.init_args.test"
            )
        held[min(own, key=drawn.__getitem__)] = True
        held[max(own, key=drawn.__getitem__)] = False
    flags = [False] * len(records)
    for group, flag in zip(groups, held, strict=True):
        for index in group:
            flags[index] = flag
    return flags


def _files(record: Record) -> list[str]:
    """What tells the photographs of a record from those of others; its key where they lie inside a table."""
    return [record.key if photo.content else str(photo.path.absolute()) for photo in record.photographs]


def _name(record: Record) -> str:
    """The name of a photograph with its folder, or of a group: as it is on every machine, and whatever is added."""
    (first, *others) = record.photographs
    return record.key if others or first.content else "/".join(first.path.parts[-2:])


def _drawn(seed: int, name: str) -> float:
    """A number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64
