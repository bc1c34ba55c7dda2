"""Where a value stands among those of the past: a queue of them, and the share that it is not below.

Legend: B values that are ranked, D dimensions, each with ranks of its own, n rows in the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_sal.transfer import read

Rows = Tensor | Sequence[Sequence[float]]


class Flushed(NamedTuple):
    """What `RankQueue.flush` did.

    Args:
        added: Rows that had been enqueued since the flush before, those that are too many for the queue included.
        dropped: Rows that are in the queue no more, or never came to be.
    """

    added: int
    dropped: int


class RankQueue(nn.Module):
    """The last `capacity` rows of values, first in, first out; a value's rank is the share of them that it is not below.

    r(x) = #{q in queue: q <= x} / n in each dimension by itself, rounded as Python rounds: the empirical distribution
    function of the past, as Dr. Seg takes it. What is enqueued counts from the next `flush` on, so that all values of a step
    are ranked against the steps before it. Equal values share the upper rank.

    Everything is in float64, whatever the module is converted to: its buffers, whose shapes stay, hold bits. A component
    that is not finite counts as 0, here and in the queue.

    Args:
        capacity: Most rows, >= `zeros`; the recipe has 16 steps of 128 rows.
        zeros: Rows of zeros that it begins with, >= 1; the recipe has those of one step.
        dimensions: D >= 1.
        digits: Decimals of a rank, >= 0, as Python's `round` has them; null for none to be cut.

    Example:
        >>> queue = RankQueue(capacity=4, zeros=1, dimensions=1)
        >>> queue.enqueue([[0.2], [0.6]])
        >>> queue.ranks([[0.5]]).tolist()
        [[1.0]]
        >>> queue.flush()
        Flushed(added=2, dropped=0)
        >>> queue.ranks([[0.5], [0.6]]).tolist()
        [[0.7], [1.0]]
    """

    bits: Tensor
    length: Tensor
    side_bits: Tensor
    waiting: Tensor

    def __init__(self, capacity: int = 2048, zeros: int = 128, dimensions: int = 3, *, digits: int | None = 1) -> None:
        super().__init__()
        if zeros < 1:
            raise ValueError(f"zeros {zeros}: an empty queue ranks nothing; give zeros >= 1")
        if capacity < zeros:
            raise ValueError(f"capacity {capacity} does not hold the {zeros} rows of zeros: give at least as many")
        if dimensions < 1 or (digits is not None and digits < 0):
            raise ValueError(f"dimensions must be at least 1 and digits at least 0, not {dimensions} and {digits}")
        self.capacity, self.dimensions, self.digits = capacity, dimensions, digits
        nothing = torch.zeros(capacity, dimensions, dtype=torch.float64).view(torch.int64)
        self.register_buffer("bits", nothing)  # of the rows, the oldest first
        self.register_buffer("length", torch.tensor(zeros))
        self.register_buffer("side_bits", nothing.clone())
        self.register_buffer(
            "waiting", torch.tensor(0)
        )  # enqueued since the last flush, which may be more than it holds

    def __len__(self) -> int:
        """Rows in the queue."""
        return int(self.length)

    @property
    def rows(self) -> Tensor:
        """(n, D) float64, the rows in the queue, the oldest first."""
        return self.bits[: len(self)].view(torch.float64).clone()

    def ranks(self, values: Rows) -> Tensor:
        """(B, D) float64 in [0, 1], the ranks of values among what was flushed.

        Args:
            values: (B, D).
        """
        past = self.rows.T.contiguous().sort().values  # (D, n)
        counts = torch.searchsorted(past, self._checked(values).T.contiguous(), right=True).T
        return _shares(past.shape[1], self.digits).to(counts.device, non_blocking=True)[counts]

    @torch.no_grad()
    def enqueue(self, values: Rows) -> None:
        """Let rows wait for the next flush; of more than the capacity the last stay.

        Args:
            values: (B, D).
        """
        new = self._checked(values)
        kept = torch.cat([self._side(int(self.waiting)), new.view(torch.int64)])[-self.capacity :]
        self.side_bits[: len(kept)] = kept
        self.waiting += len(new)

    @torch.no_grad()
    def flush(self) -> Flushed:
        """Move what waits into the queue; the oldest rows leave where it is full."""
        before, added = map(int, read(self.length, self.waiting))
        kept = torch.cat([self.bits[:before], self._side(added)])[-self.capacity :]
        self.bits[: len(kept)] = kept
        self.length.fill_(len(kept))
        self.waiting.zero_()
        return Flushed(added, before + added - len(kept))

    def _side(self, waiting: int) -> Tensor:
        return self.side_bits[: min(waiting, self.capacity)]

    def _checked(self, values: Rows) -> Tensor:
        """(B, D) finite float64 on the device of the queue.

        Raises:
            ValueError: If they have another shape.
        """
        rows = torch.as_tensor(values, dtype=torch.float64).detach().to(self.bits.device, non_blocking=True)
        if rows.shape == (0,):
            rows = rows.reshape(0, self.dimensions)
        if rows.ndim != 2 or rows.shape[1] != self.dimensions:
            raise ValueError(f"values to rank must be (B, {self.dimensions}), not {tuple(rows.shape)}")
        return rows.where(rows.isfinite(), 0.0).contiguous()


@lru_cache(maxsize=8)
def _shares(length: int, digits: int | None) -> Tensor:
    """(n + 1,) float64: k / n for each k, rounded by Python, whose decimals are those of the binary number itself."""
    shares = [count / length for count in range(length + 1)]
    return torch.tensor(shares if digits is None else [round(share, digits) for share in shares], dtype=torch.float64)
