"""Image groups that ask for an answer without reasoning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import task_of


class WithoutReasoning:
    """The groups of another dataset, asked for the answer block alone; annotated responses lose their reasoning.

    Args:
        dataset: Map-style dataset of image groups, with or without an end.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.endless = dataset, getattr(dataset, "endless", False)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ImageGroup:
        group = replace(self.dataset[index], reasoning=False)
        if group.response is None:
            return group
        task = task_of(group)
        return replace(group, response=task.write("", task.parse(group.response)))
