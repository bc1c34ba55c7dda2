"""Random integers that are the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Integers from the raw 64-bit output of PCG64."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def below(self, n: int) -> int:
        """One integer in [0, n)."""
        return int(self._bits.random_raw() % n)

    def between(self, low: int, high: int) -> int:
        """One integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def chance(self, per_cent: int) -> bool:
        """True in `per_cent` of a hundred draws."""
        return self.below(100) < per_cent

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """`items` in a drawn order."""
        order = np.argsort(self._bits.random_raw(len(items)), kind="stable")
        return [items[i] for i in order]

    def noise(self, amplitude: int, size: int) -> np.ndarray:
        """(size, size, 3) integers in [-amplitude, amplitude]."""
        raw = self._bits.random_raw(size * size * 3 // 8 + 1).view(np.uint8)[: size * size * 3]
        return (raw.reshape(size, size, 3).astype(np.int64) * (2 * amplitude + 1) >> 8) - amplitude
