"""Benchmarks in folders: one task, or the three in one stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.datasets import ImageGroups, Record, Source, jsonl_records, task_records
from lightning_sal.datasets.cosod import GroupDraws, chunks
from lightning_sal.datasets.endless import Mixture
from lightning_sal.tasks import get_task, load_task

Place = str | Source
Folders = dict[str, Place | list[Place]]


class UnifiedDataModule(ImageGroupsDataModule):
    """Several tasks in one stream, drawn by weight; with annotated responses beside it for interleaved SFT.

    A folder may hold the splits train, val and test, of which the one that is wanted is taken, or a single dataset. In its
    place may stand a JSONL, of which the lines of the task are taken, or a source of your own by its class_path: a class
    with the method of `lightning_sal.datasets.Source`. A task of your own is named by its place, FILE.py:NAME. In training,
    a CoSOD sample is K random images of its group; in evaluation each group is cut into parts of at most K.

    Args:
        train: Task (sod, sis, cosod) -> folder to train on, or a list of them; for sis each may be a COCO json.
        val: Task -> folder or folders to validate on.
        test: Task -> folder or folders to test on.
        weights: Task -> weight >= 0, how often it is drawn in training; null for all alike.
        group_size: K, images of a CoSOD sample, >= 2.
        sft: JSONL of annotated responses, a second stream for `lightning_sal.callbacks.InterleavedSFT`:
            `train_dataloader` then gives {"rl": ..., "sft": ...}.
        limit: Take only the first so many samples of each folder (for CoSOD in training: groups); null for all.
        **kwargs: See `ImageGroupsDataModule`.
    """

    def __init__(
        self,
        train: Folders | None = None,
        val: Folders | None = None,
        test: Folders | None = None,
        weights: dict[str, float] | None = None,
        group_size: int = 8,
        sft: str | None = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = {"train": train or {}, "val": val or {}, "test": test or {}}
        self.folders = {
            split: {load_task(task).name: places for task, places in named.items()} for split, named in given.items()
        }
        if group_size < 2:
            raise ValueError(f"group_size is the number of images of a CoSOD sample, at least 2, not {group_size}")
        self.weights = weights and {load_task(task).name: weight for task, weight in weights.items()}
        self.group_size, self.sft, self.limit = group_size, sft, limit

    def training_datasets(self) -> dict[str, Any]:
        datasets: dict[str, Any] = {}
        if tasks := self.folders["train"]:
            draws = {task: GroupDraws(self._records(task, "train"), self.group_size, self.seed) for task in tasks}
            datasets["rl"] = Mixture(draws, self.weights or dict.fromkeys(tasks, 1.0), self.seed)
        if self.sft is not None:
            datasets["sft"] = ImageGroups(jsonl_records(self.sft))
        return datasets

    @property
    def training_tasks(self) -> list[str]:
        return list(self.folders["train"])

    @property
    def known_tasks(self) -> list[str]:
        """The tasks of all splits."""
        return list(dict.fromkeys(task for folders in self.folders.values() for task in folders))

    def evaluation_dataset(self, split: str) -> ImageGroups | None:
        found = [self._records(task, split, chunked=True) for task in self.folders[split]]
        return ImageGroups([record for records in found for record in records]) if found else None

    def _records(self, task: str, split: str, chunked: bool = False) -> list[Record]:
        named = self.folders[split][task]
        places = named if isinstance(named, list) else [named]
        found: list[Record] = []
        for number, place in enumerate(places, 1):
            records = task_records(get_task(task), place, split)
            records = (chunks(records, self.group_size) if chunked else records)[: self.limit]
            # A key is unique within its folder alone.
            within = [task] * (len(self.folders[split]) > 1) + [_name(place, number)] * (len(places) > 1)
            found += [replace(record, key="/".join([*within, record.key])) for record in records]
        return found


class SODDataModule(UnifiedDataModule):
    """Salient object detection: photographs with one mask each.

    Args:
        train: Folder to train on, null for none.
        val: Folder to validate on, null for none.
        test: Folder to test on, null for none.
        **kwargs: See `UnifiedDataModule`.
    """

    def __init__(
        self, train: str | None = None, val: str | None = None, test: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(_of("sod", train), _of("sod", val), _of("sod", test), weights=None, group_size=2, **kwargs)


class SISDataModule(UnifiedDataModule):
    """Salient instance segmentation: photographs with a mask for each instance.

    Args:
        train: Folder (or COCO json) to train on, null for none.
        val: Folder (or COCO json) to validate on, null for none.
        test: Folder (or COCO json) to test on, null for none.
        **kwargs: See `UnifiedDataModule`.
    """

    def __init__(
        self, train: str | None = None, val: str | None = None, test: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(_of("sis", train), _of("sis", val), _of("sis", test), weights=None, group_size=2, **kwargs)


class CoSODDataModule(UnifiedDataModule):
    """Co-salient object detection: groups of K photographs that share an object.

    Args:
        train: Folder to train on, null for none.
        val: Folder to validate on, null for none.
        test: Folder to test on, null for none.
        group_size: K, images of a sample, >= 2.
        **kwargs: See `UnifiedDataModule`.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        group_size: int = 8,
        **kwargs: Any,
    ) -> None:
        folders = _of("cosod", train), _of("cosod", val), _of("cosod", test)
        super().__init__(*folders, weights=None, group_size=group_size, **kwargs)


def _name(place: Place, number: int) -> str:
    return Path(place).name if isinstance(place, str) else f"source-{number}"


def _of(task: str, folder: str | None) -> Folders | None:
    return None if folder is None else {task: folder}
