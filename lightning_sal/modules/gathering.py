"""Rows of all ranks, on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_sal.objectives import Moments, moments_of, power_sums


def gather_rows(module: Any, rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks, which may have unequally many.

    Args:
        module: A `PolicyModule`, on each rank the same.
        rows: (n, ...) of this rank.

    Returns:
        (N, ...), the same on each rank.
    """
    if module.trainer.world_size == 1:
        return rows
    rows = rows.to(module.device)
    count = torch.tensor(len(rows), device=module.device)
    most = module.max_over_ranks(len(rows))
    padded = pad(rows, [0, 0] * (rows.ndim - 1) + [0, most - len(rows)])
    counts, everything = module.all_gather(count), module.all_gather(padded)  # one more dimension in front: the rank
    return torch.cat([of_rank[:n] for of_rank, n in zip(everything, counts.tolist(), strict=True)])


def moments_over_ranks(module: Any, values: Tensor) -> Moments:
    """Moments of the values of all ranks together, the same on each; the host does not wait.

    Args:
        module: As for `gather_rows`.
        values: (n,) of this rank, n >= 1, on its device.
    """
    values = values.double()
    low = -module.all_reduce(-values.min(), "max")
    return moments_of(low, module.all_reduce(power_sums(values - low)))


def gather_in_order(module: Any, columns: Mapping[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """The rows of all ranks, in the order in which one process would have had them.

    Args:
        module: As for `gather_rows`.
        columns: Name -> (n, ...) of this rank; on each rank the same names.
        places: (n,) int64, ascending, the number of each row among those of all ranks.

    Returns:
        Name -> (N, ...), the same on each rank.
    """
    if module.trainer.world_size == 1 or not columns:
        return dict(columns)
    order = gather_rows(module, places).argsort()
    return {name: gather_rows(module, values)[order] for name, values in columns.items()}
