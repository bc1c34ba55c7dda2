"""The one mask of a question: the union of what a list gives as its objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_sal.datasets.records import Annotation

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Union:
    """The annotation of a photograph as one mask; nothing at all where there is no object.

    Args:
        parts: Gives the masks of the objects.
    """

    parts: Annotation

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        """(1, H, W) bool; arguments as for `Annotation`."""
        return self.parts(size, orientation).any(0, keepdim=True)
