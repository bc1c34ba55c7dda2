"""The check by pictures: do a segmenter's masks for the expressions agree with the ground truth?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_sal.inference.responses import Response, find_masks
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task
from lightning_sal.tasks.measures import primary


@dataclass(frozen=True)
class PictureCheck:
    """Keeps responses whose masks reach a measure: the primary one of the task, averaged over a group.

    Args:
        segmenter: Finds the masks.
        least: The measure in [0, 1] that is reached.
    """

    segmenter: Any
    least: float

    def fault(self, group: ImageGroup, response: str) -> str | None:
        """Why a response fails, or None."""
        task = get_task(group.task)
        (found,) = find_masks([Response(group, response, task.parse(response))], self.segmenter)
        (value,) = task.correctness([group], [found.answer], [found.masks])
        measures = task.measures()
        name = measures[primary(measures)].heading
        return None if value >= self.least else f"pictures: {name} {value:.3f} below {self.least:g}"
