"""What all processes of a training have, on each of them."""

from __future__ import annotations

from typing import Any

from torch import distributed


def over_ranks(own: list[Any]) -> list[Any]:
    """The items of all processes, in the order of the ranks, however many each has; every process has to ask."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, own)
    return [item for part in parts for item in part]
