"""Procedural scenes as an indexable dataset without an end."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_sal.samples import ImageGroup
from lightning_sal.tiny.scenes import Draw, scene_group


class SceneGroups:
    """Image groups of procedural scenes; sample `index` is a pure function of the arguments and `index`.

    Args:
        seed: Seed of the scenes, >= 0; two seeds share no scene.
        tasks: Task -> weight (a whole number >= 0), how often each is drawn.
        group_size: K, the images of a CoSOD group, >= 2.
        size: Number of samples; None for a dataset without end.
        annotated: Whether groups carry responses.
        mistakes: Per cent of the responses in which one shape is named wrongly, in [0, 100].
    """

    def __init__(
        self,
        seed: int,
        tasks: Mapping[str, int],
        *,
        group_size: int = 3,
        size: int | None = None,
        annotated: bool = True,
        mistakes: int = 0,
    ) -> None:
        self.seed, self.group_size, self.size = seed, group_size, size
        self.annotated, self.mistakes = annotated, mistakes
        self.endless = size is None
        self._deck = tuple(task for task, weight in tasks.items() for _ in range(weight))
        if not self._deck:
            raise ValueError("scenes: every task has weight 0; give at least one of sod, sis, cosod a weight")

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("this scene dataset has no end; give `size` for one that has")
        return self.size

    def __getitem__(self, index: int) -> ImageGroup:
        if self.size is not None and not 0 <= index < self.size:
            raise IndexError(index)
        task = Draw(self.seed, 0, index).choice(self._deck)
        return scene_group(
            self.seed, task, index, group_size=self.group_size, annotated=self.annotated, mistakes=self.mistakes
        )
