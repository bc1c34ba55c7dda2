"""Datasets without an end: sample i is a pure function of a seed and i, whatever was drawn before.

A training stream is then one number, the next i; it can be split over ranks and workers, stopped and continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from lightning_sal.samples import ImageGroup


class Indexed(Protocol):
    """A dataset of image groups; `endless = True` says that every index >= 0 is a sample."""

    def __getitem__(self, index: int, /) -> ImageGroup: ...


@lru_cache(maxsize=16)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of `size` samples in an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(size)


class Repeated:
    """A finite dataset over and over.

    Args:
        dataset: Has a length and an index.
        seed: Seed of the order, >= 0.
        shuffle: Whether each epoch has its own order; otherwise all have that of the dataset.
    """

    endless = True

    def __init__(self, dataset: Any, *, seed: int, shuffle: bool = True) -> None:
        self.dataset, self.seed, self.shuffle = dataset, seed, shuffle

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ImageGroup:
        epoch, place = divmod(index, len(self.dataset))
        return self.dataset[int(permutation(self.seed, epoch, len(self.dataset))[place]) if self.shuffle else place]


class Mixture:
    """Draws from several endless datasets by weight; draw i takes the next sample of the dataset it falls on.

    Which dataset draw i falls on is a pure function of (seed, i), and so is how many draws fell on it before, hence the
    sample: nothing is left out or repeated within an epoch of any of them.

    Args:
        datasets: Name -> endless dataset.
        weights: Name -> weight >= 0, normalised to probabilities; the same names.
        seed: Seed of the draws, >= 0.
    """

    endless = True
    _BLOCK = 4096

    def __init__(self, datasets: Mapping[str, Any], weights: Mapping[str, float], seed: int) -> None:
        if set(datasets) != set(weights) or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError(
                f"weights {dict(weights)} for {sorted(datasets)}: one weight >= 0 each, and not all of them 0"
            )
        self.datasets = [datasets[name] for name in sorted(datasets)]
        shares = np.array([weights[name] for name in sorted(datasets)], dtype=float)
        self._edges = np.cumsum(shares / shares.sum())[:-1]
        self._seed = seed
        self._before = [np.zeros(len(shares), dtype=np.int64)]  # draws of each dataset before block b

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, index: int) -> ImageGroup:
        block, place = divmod(index, self._BLOCK)
        while len(self._before) <= block:
            drawn = np.bincount(self._draws(len(self._before) - 1), minlength=len(self.datasets))
            self._before.append(self._before[-1] + drawn)
        draws = self._draws(block)
        chosen = draws[place]
        return self.datasets[chosen][int(self._before[block][chosen] + (draws[:place] == chosen).sum())]

    def _draws(self, block: int) -> np.ndarray:
        uniform = np.random.default_rng((self._seed, block)).random(self._BLOCK)
        return np.searchsorted(self._edges, uniform, side="right")
