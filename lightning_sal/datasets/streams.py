"""Image groups in batches: endless resumable streams for training, one exact pass for evaluation.

Bad samples are data here, not exceptions: their lines travel in `Batch.unreadable`, also out of worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lightning_sal.datasets.endless import Indexed, Repeated
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.samples import Batch, ImageGroup

TRIES = 16

Read = tuple[ImageGroup | None, tuple[str, ...]]


class Stream:
    """Batches of a training set without end, in an order that is a pure function of the seed.

    Rank r of W takes the samples r, r + W, r + 2W, ... of the common order, so that every rank gets as many batches as
    the others and, within an epoch, samples of its own. Nothing is read and no worker starts before the first batch is
    drawn. Iterating goes on where the last iteration stopped.

    Args:
        dataset: Map-style dataset, repeated for ever; or one with `endless = True`, whose sample i is a pure function
            of i and which is read in the order of its indices.
        batch_size: B, samples of a batch on this rank.
        seed: Seed of the order, >= 0.
        shuffle: Whether each epoch over the dataset has its own order.
        num_workers: Processes that read ahead; the batches do not depend on it.
        length: Batches of a Lightning epoch; None for one pass over the dataset by all ranks together.
        rank: This process among `world_size`.
        world_size: Number of processes that share the dataset.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        num_workers: int = 0,
        length: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.batch_size, self.num_workers, self.length = batch_size, num_workers, length
        self.rank, self.world_size = rank, world_size
        self.position = 0  # samples that all ranks together have been handed
        self._endless = dataset if getattr(dataset, "endless", False) else Repeated(dataset, seed=seed, shuffle=shuffle)
        self._iterator: Iterator[Batch] | None = None  # of this name, Lightning shuts down its workers after the fit

    def __len__(self) -> int:
        return self.length if self.length is not None else -(-len(self.dataset) // self._samples_a_step)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            indices = _indices(self.position + self.rank, self.batch_size, self.world_size)
            self._iterator = _batches(_Reader(self._endless, TRIES), indices, self.num_workers)
        batch = next(self._iterator)
        if len(batch) < self.batch_size:
            raise UnreadableSample(
                f"{TRIES} samples in a row cannot be read, the last: {batch.unreadable[-1]}; "
                "`lightning-sal check-data` names them all"
            )
        self.position += self._samples_a_step
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands: batches that workers have read ahead do not count."""
        return {"position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on with exactly the sample after the last one handed out before `state_dict`."""
        self.position = state_dict["position"]
        self.close()

    def close(self) -> None:
        """Ends the workers and forgets what they have read ahead; the next batch starts them again."""
        self._iterator = None

    @property
    def _samples_a_step(self) -> int:
        return self.batch_size * self.world_size


class EvaluationLoader:
    """Each sample of a dataset exactly once over all ranks, the same number of batches on each.

    The last batches of a rank may be smaller, and even empty: ranks that share too few samples still take their steps
    together, and a batch of unreadable samples alone holds only their lines.

    Args:
        dataset: Map-style dataset.
        batch_size: B, at most so many samples a batch.
        num_workers: Processes that read ahead.
        rank: This process among `world_size`; it takes the samples rank, rank + world_size, ...
        world_size: Number of processes that share the dataset.
    """

    def __init__(
        self, dataset: Any, batch_size: int, *, num_workers: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.dataset, self.num_workers = dataset, num_workers
        mine = list(range(rank, len(dataset), world_size))
        count = -(-len(dataset) // (batch_size * world_size))
        self._batches = [mine[i * batch_size : (i + 1) * batch_size] for i in range(count)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return _batches(_Reader(self.dataset, tries=1), self._batches, self.num_workers)


class _Reader:
    """Reads sample i, or the first readable one of the `tries` from i on; None where all fail."""

    def __init__(self, dataset: Indexed, tries: int) -> None:
        self.dataset, self.tries = dataset, tries

    def __getitem__(self, index: int) -> Read:
        lines: list[str] = []
        for attempt in range(index, index + self.tries):
            try:
                return self.dataset[attempt], tuple(lines)
            except UnreadableSample as error:
                lines.append(str(error))
        return None, tuple(lines)


def _indices(first: int, batch_size: int, stride: int) -> Iterator[list[int]]:
    # No method of the stream: a cycle through it would leave ending the workers to the garbage collector, which takes
    # seconds over it.
    while True:
        yield list(range(first, first + batch_size * stride, stride))
        first += batch_size * stride


def _batches(reader: Any, batches: Any, num_workers: int) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader

    # With a generator of its own the loader draws nothing from the global one, which a resumed run must find as it was.
    generator = torch.Generator().manual_seed(0)
    return iter(
        DataLoader(reader, batch_sampler=batches, num_workers=num_workers, collate_fn=_collate, generator=generator)
    )


def _collate(reads: Sequence[Read]) -> Batch:
    groups = tuple(group for group, _ in reads if group is not None)
    return Batch(groups, tuple(line for _, lines in reads for line in lines))
