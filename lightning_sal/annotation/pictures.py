"""The check by pictures: do a segmenter's masks for the expressions agree with the ground truth?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task

if TYPE_CHECKING:
    from lightning_sal.segmenters import Segmenter


@dataclass(frozen=True)
class PictureCheck:
    """Keeps responses whose masks reach a measure: S-measure for regions (mean over a group), IASM for instances.

    Args:
        segmenter: Finds the masks.
        least: The measure in [0, 1] that is reached.
    """

    segmenter: Segmenter
    least: float

    def fault(self, group: ImageGroup, response: str) -> str | None:
        """Why a response fails, or None."""
        import torch

        from lightning_sal.rewards import Correctness, Judged, compose_answers

        (answer,), (masks,) = compose_answers([group], [response], self.segmenter)
        with torch.no_grad():
            value = float(Correctness()([Judged(group, response, answer, False, masks)]).values)
        name = "IASM" if get_task(group.task).instances else "S-measure"
        return None if value >= self.least else f"pictures: {name} {value:.3f} below {self.least:g}"
