"""Procedural scenes: a source of image groups without files."""

from __future__ import annotations

from typing import Any, Literal

from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.datasets.scenes import HELD_OUT, SCENES, WORDED, SceneGroups

_TASKS = {"sod": 1, "sis": 1, "cosod": 1}
_ANNOTATED_SEED = 1
_TELLINGS = {"plain": 1, "varied": 16}  # responses to an annotated scene


class ScenesDataModule(ImageGroupsDataModule):
    """Seeded procedural scenes, in the situation of real data: few annotated, many with masks alone.

    Tasks of them: sod, sis, cosod; vqa, which has questions about one of several vivid objects, with its box, its mask and
    the right answer; and perception, detection and counting, which ask for objects by words, all of a shape, and how many,
    with their boxes and points. Some of perception and counting fit nothing.

    Stream "rl" is endless and carries masks alone; stream "sft" repeats a fixed set of annotated scenes, of whose
    responses some have a wrong word. That set and the held-out scenes of validation and test are the same for every
    `seed`, which draws the scenes of stream "rl" and the order of the others. The same seed gives the same pixels on
    every machine.

    Args:
        streams: Training streams, of "rl" and "sft"; two of them are handed out by name, for
            `lightning_sal.callbacks.InterleavedSFT`.
        tasks: Task -> weight (a whole number >= 0), how often each is drawn; a task without one is not.
        group_size: K, the images of a CoSOD group, >= 2.
        annotated: Number of annotated scenes in stream "sft"; null for no end of them.
        mistakes: Per cent of the annotated responses in which one word is wrong (a shape; of vqa the
            answer; of what is to be found an object that is wrong, missing or misplaced), in [0, 100].
        wording: How responses of sod, sis and cosod are worded: `plain`, always in the same words, of which a policy is soon
            certain; or `varied`, in words drawn for each response, as in free text. Annotated scenes then have 16 responses
            each, alike in what they say; `tiny-varied` is trained on them.
        val_size: Held-out scenes to validate on, all tasks together.
        test_size: Held-out scenes to test on, all tasks together.
        **kwargs: See `ImageGroupsDataModule`.
    """

    drawn = True

    def __init__(
        self,
        streams: list[str] = ["rl", "sft"],  # noqa: B006  jsonargparse shows the value in --help
        tasks: dict[str, int] = _TASKS,
        group_size: int = 3,
        annotated: int | None = 300,
        mistakes: int = 15,
        wording: Literal["plain", "varied"] = "plain",
        val_size: int = 192,
        test_size: int = 192,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if unknown := sorted(set(streams) - {"rl", "sft"}):
            raise ValueError(f"scenes: unknown stream {unknown[0]!r}; known are rl and sft")
        if unknown := sorted(set(tasks) - set(SCENES)):
            raise ValueError(f"scenes: unknown task {unknown[0]!r}; known are {', '.join(SCENES)}")
        self.names, self.tasks, self.group_size = streams, tasks, group_size
        self.annotated, self.mistakes = annotated, mistakes
        self.wording, self.tellings = wording, _TELLINGS[wording]
        unworded = [task for task, weight in tasks.items() if weight and task not in WORDED]
        if unworded and wording != "plain":
            known = ", ".join(WORDED)
            raise ValueError(f"scenes: task {unworded[0]} has one wording alone; wording {wording} is for {known}")
        self.sizes = {"val": val_size, "test": test_size}

    def training_datasets(self) -> dict[str, Any]:
        annotated_seed = 2 * self.seed + 1 if self.annotated is None else _ANNOTATED_SEED
        make = {
            "rl": lambda: self._scenes(2 * self.seed, annotated=False),
            "sft": lambda: self._scenes(
                annotated_seed, size=self.annotated, mistakes=self.mistakes, tellings=self.tellings
            ),
        }
        return {name: make[name]() for name in self.names}

    @property
    def training_tasks(self) -> list[str]:
        return [task for task, weight in self.tasks.items() if weight]

    def evaluation_dataset(self, split: str) -> SceneGroups | None:
        return self._scenes(HELD_OUT[split], size=self.sizes[split]) if self.sizes[split] else None

    def _scenes(self, seed: int, **options: Any) -> SceneGroups:
        return SceneGroups(seed, self.tasks, group_size=self.group_size, wording=self.wording, **options)
