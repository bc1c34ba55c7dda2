"""Procedural scenes as an indexable dataset without an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from lightning_sal.samples import ImageGroup
from lightning_sal.tiny.finding import FINDING, find_group
from lightning_sal.tiny.questions import question_group
from lightning_sal.tiny.scenes import Draw, scene_group

WORDED = ("sod", "sis", "cosod")
"""Tasks whose responses can be worded in several ways."""
SCENES: dict[str, Callable[..., ImageGroup]] = {
    **{task: partial(scene_group, task=task) for task in WORDED},
    "vqa": question_group,
    **{task: partial(find_group, task=task) for task in FINDING},
}
"""Task -> what makes a group of it from `seed`, `index`, `annotated` and `mistakes`."""
HELD_OUT = {"val": 1_000_003, "test": 2_000_003}
"""Split -> the seed of the scenes that nothing is trained on."""


class SceneGroups:
    """Image groups of procedural scenes; sample `index` is a pure function of the arguments and `index`.

    Args:
        seed: Seed of the scenes, >= 0; two seeds share no scene.
        tasks: Task, a key of `SCENES`, -> weight (a whole number >= 0), how often each is drawn.
        group_size: K, the images of a CoSOD group, >= 2.
        size: Number of samples; None for a dataset without end.
        annotated: Whether groups carry responses.
        mistakes: Per cent of the responses in which one word is wrong, in [0, 100].
        wording: Key of `lightning_sal.tiny.wording.WORDINGS`, how responses of sod, sis and cosod are worded.
        tellings: How many responses each sample has, worded one by one; the dataset is so many times as long.
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
        wording: str = "plain",
        tellings: int = 1,
    ) -> None:
        self.seed, self.size, self.samples = seed, None if size is None else size * tellings, size
        self.annotated, self.mistakes = annotated, mistakes
        worded = {task: partial(SCENES[task], wording=wording) for task in WORDED}
        self._make = SCENES | worded | {"cosod": partial(worded["cosod"], group_size=group_size)}
        self.endless = size is None
        self._deck = tuple(task for task, weight in tasks.items() for _ in range(weight))
        if not self._deck:
            raise ValueError(f"scenes: every task has weight 0; give at least one of {', '.join(SCENES)} a weight")

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("this scene dataset has no end; give `size` for one that has")
        return self.size

    def __getitem__(self, index: int) -> ImageGroup:
        if self.size is not None and not 0 <= index < self.size:
            raise IndexError(index)
        telling, index = divmod(index, self.samples) if self.samples else (0, index)
        task = Draw(self.seed, 0, index).choice(self._deck)
        told = {"telling": telling} if task in WORDED else {}
        return self._make[task](seed=self.seed, index=index, annotated=self.annotated, mistakes=self.mistakes, **told)
