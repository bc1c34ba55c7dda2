"""Images to answer for, without ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import lightning as L

from lightning_sal.datasets.photographs import check_formats, check_group, find_groups, read_group
from lightning_sal.samples import Batch
from lightning_sal.tasks import load_task
from lightning_sal.tiny.notice import is_drawn


class PredictDataModule(L.LightningDataModule):
    """Photographs for `lightning predict`; a file that cannot be read ends the run (`lightning-sal segment` goes on).

    Args:
        images: Image files, folders (with all folders below) and patterns as `photos/**/*.jpg`. For cosod, each folder that
            holds images is a group, and files named singly are one group together; otherwise each is a sample.
        task: sod, sis, cosod, or your own as FILE.py:NAME.
        batch_size: Image groups of a batch on one rank.
        question: What is asked of each group beside the task's instruction; empty for nothing.
    """

    def __init__(self, images: list[str], task: str = "sod", batch_size: int = 1, question: str = "") -> None:
        super().__init__()
        task = load_task(task).name
        self.task, self.batch_size, self.question = task, batch_size, question
        self.groups = find_groups(images, task)
        for files in self.groups:
            check_group(files, task)
        check_formats(self.groups)

    @property
    def drawn(self) -> bool:
        """Whether all are scenes that the package ships."""
        return all(is_drawn(file) for files in self.groups for file in files)

    @property
    def known_tasks(self) -> list[str]:
        """The task that is asked."""
        return [self.task]

    def predict_dataloader(self) -> _GroupsOfFiles:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        mine = list(enumerate(self.groups))[rank::world_size]
        return _GroupsOfFiles(self.task, mine, self.batch_size, self.question)


class _GroupsOfFiles:
    """Batches of image groups, read when their turn comes."""

    def __init__(self, task: str, groups: list[tuple[int, tuple[str, ...]]], batch_size: int, question: str) -> None:
        self.task, self.groups, self.batch_size, self.question = task, groups, batch_size, question

    def __len__(self) -> int:
        return -(-len(self.groups) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.groups), self.batch_size):
            part = self.groups[start : start + self.batch_size]
            groups = (read_group(files, self.task, f"{self.task}-{number}") for number, files in part)
            yield Batch(tuple(replace(group, question=self.question) for group in groups))
