"""What tasks without masks are measured by: whether the answer is the right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks.base import Task
from lightning_sal.tasks.measures import Measure

if TYPE_CHECKING:
    from torch import Tensor


class AccuracyTask(Task):
    """A task with a reference answer and no masks; correctness is 1 where `agrees` says that the answer is right, else 0.

    Measured by accuracy, the share of right answers in [0, 1].
    """

    needs = frozenset({"reference"})

    def measures(self) -> dict[str, Measure]:
        """`accuracy`."""
        return {"accuracy": Measure("accuracy", reported=True, primary=True, per_image=True)}

    def metrics(self, **_: Any) -> dict[str, Any]:
        """`accuracy`."""
        from torchmetrics import MeanMetric

        return {"accuracy": MeanMetric()}

    def update(
        self,
        metrics: Mapping[str, Any],
        group: ImageGroup,
        answer: Any,
        masks: Sequence[Tensor],
        scores: Tensor | None = None,
    ) -> list[dict[str, float]]:
        """See `Task.update`."""
        (value,) = self.correctness([group], [answer], [None])
        metrics["accuracy"].update(value)
        return [{"accuracy": value}]

    def correctness(
        self, groups: Sequence[ImageGroup], answers: Sequence[Any], masks: Sequence[Sequence[Tensor] | None]
    ) -> list[float]:
        """1 for each answer that is right, else 0."""
        for group in groups:
            self.require(group)
        return [float(bool(self.agrees(answer, group))) for group, answer in zip(groups, answers, strict=True)]
