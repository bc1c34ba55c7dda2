"""Images to answer for, without ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning as L

from lightning_sal.datasets.images import read_image
from lightning_sal.samples import Batch, ImageGroup
from lightning_sal.tasks import get_task


class PredictDataModule(L.LightningDataModule):
    """Photographs for `lightning predict`: each a sample of its own, or all together one CoSOD group.

    Args:
        images: Image files.
        task: "sod", "sis" or "cosod".
        batch_size: Image groups of a batch on one rank.
    """

    def __init__(self, images: list[str], task: str = "sod", batch_size: int = 1) -> None:
        super().__init__()
        get_task(task)
        if task == "cosod" and len(images) < 2:
            raise ValueError(f"cosod needs a group of at least 2 images, and {len(images)} given")
        for image in images:
            if not Path(image).is_file():
                raise FileNotFoundError(f"{image}: there is no such image file")
        self.task, self.batch_size = task, batch_size
        self.groups = [images] if task == "cosod" else [[image] for image in images]

    def predict_dataloader(self) -> _GroupsOfFiles:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        mine = list(enumerate(self.groups))[rank::world_size]
        return _GroupsOfFiles(self.task, mine, self.batch_size)


class _GroupsOfFiles:
    """Batches of image groups, read when their turn comes."""

    def __init__(self, task: str, groups: list[tuple[int, list[str]]], batch_size: int) -> None:
        self.task, self.groups, self.batch_size = task, groups, batch_size

    def __len__(self) -> int:
        return -(-len(self.groups) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.groups), self.batch_size):
            yield Batch(tuple(self._read(*group) for group in self.groups[start : start + self.batch_size]))

    def _read(self, number: int, files: list[str]) -> ImageGroup:
        images = tuple(read_image(Path(file)) for file in files)
        return ImageGroup(f"{self.task}-{number}", self.task, images, paths=tuple(files))
