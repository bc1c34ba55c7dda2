"""What all processes of a training have, on each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import lightning as L
from torch import distributed


def over_ranks(own: list[Any]) -> list[Any]:
    """The items of all processes, in the order of the ranks, however many each has; every process has to ask."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return [item for part in parts for item in part]


def require_shared(folder: Path, trainer: L.Trainer) -> None:
    """Make a folder, and check that it is the same one for all processes; each has to ask.

    Raises:
        ValueError: If it is not, as on nodes with disks of their own, or for a relative path; on every process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".{trainer.strategy.broadcast(uuid4().hex)}"  # a name that no node remembers as absent
    if trainer.is_global_zero:
        mark.touch()
    trainer.strategy.barrier("mark made")
    lacking = over_ranks([] if mark.exists() else [trainer.global_rank])
    if trainer.is_global_zero:
        mark.unlink()
    if lacking:
        raise ValueError(
            f"{folder}: rank {lacking[0]} sees another folder there than rank 0: name one that all nodes share"
        )
