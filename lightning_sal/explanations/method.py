"""What a method of explanation is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lightning_sal.explanations.cases import Case
from lightning_sal.inference.maps import LabelMaps


@dataclass(frozen=True)
class Method(ABC):
    """Gives a map of each image for each label of a response; every method is given the same responses.

    Args:
        name: In tables and files, and by which the command is told.
    """

    name: str

    @abstractmethod
    def maps(self, case: Case) -> LabelMaps:
        """For each label the maps of the K images, (rows, columns) float32 on the CPU; what is negative has no mass.

        Args:
            case: The response; it has a label.
        """
