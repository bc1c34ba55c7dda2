"""Benchmarks in folders: one task, or the three in one stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.datasets import (
    ImageGroups,
    Record,
    Source,
    evaluation_split,
    hold_out,
    jsonl_records,
    task_records,
)
from lightning_sal.datasets.cosod import GroupDraws, chunks
from lightning_sal.datasets.endless import Mixture, permutation
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
        held_out: Share of the samples to train on, in [0, 1), that is held out to validate and test on where `val` or `test`
            is null; 0 for none. At least one of each task, and whole groups of CoSOD, drawn by the seed and the names of
            photographs, so that files that are added move none of the others. Of a folder with splits its own are taken.
        val_size: Most samples to validate on, drawn by the seed from the tasks in turn; null for all.
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
        held_out: float = 0.0,
        val_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out is a share of the samples, in [0, 1), not {held_out}")
        if val_size is not None and val_size < 1:
            raise ValueError(f"val_size is at least 1, or null for all, not {val_size}")
        given = {"train": train or {}, "val": val or {}, "test": test or {}}
        self.folders = {
            split: {load_task(task).name: places for task, places in named.items()} for split, named in given.items()
        }
        if group_size < 2:
            raise ValueError(f"group_size is the number of images of a CoSOD sample, at least 2, not {group_size}")
        self.weights = weights and {load_task(task).name: weight for task, weight in weights.items()}
        self.group_size, self.sft, self.limit = group_size, sft, limit
        self.held_out, self.val_size = held_out, val_size

    def training_datasets(self) -> dict[str, Any]:
        datasets: dict[str, Any] = {}
        if found := self._records("train"):
            draws = {task: GroupDraws(records, self.group_size, self.seed) for task, records in found.items()}
            datasets["rl"] = Mixture(draws, self.weights or dict.fromkeys(draws, 1.0), self.seed)
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
        found = self._records(split).values()
        records = [record for of_task in found for record in of_task]
        if split == "val" and self.val_size is not None:
            drawn = [[of_task[i] for i in permutation(self.seed, 0, len(of_task))] for of_task in found]
            records = [record for turn in zip_longest(*drawn) for record in turn if record][: self.val_size]
        return ImageGroups(records) if records else None

    def _records(self, split: str) -> dict[str, list[Record]]:
        """Task -> its samples of a split."""
        shared = self.held_out and not (self.folders["val"] and self.folders["test"])
        folders = self.folders[split] or (self.folders["train"] if shared else {})
        parts = self._shared_out(split) if shared and folders is self.folders["train"] else self._read(split)
        records: dict[str, list[Record]] = {task: [] for task in folders}
        for task, name, found in parts:
            found = found if split == "train" else chunks(found, self.group_size)
            # A key is unique within its folder alone.
            within = [task] * (len(folders) > 1) + [name] * bool(name)
            records[task] += [replace(record, key="/".join([*within, record.key])) for record in found[: self.limit]]
        return records

    def _read(self, split: str) -> Iterator[tuple[str, str, list[Record]]]:
        """Task, name and samples of each folder that is given for a split."""
        for task, name, place in _places(self.folders[split]):
            yield task, name, task_records(get_task(task), place, split)

    def _shared_out(self, split: str) -> Iterator[tuple[str, str, list[Record]]]:
        """The same for each folder to train on: the samples of a split are its own, or held out, or what is left."""
        places = list(_places(self.folders["train"]))
        own = [evaluation_split(get_task(task), place, split) for task, _, place in places]
        read = ["train" if split == "train" else each or "train" for each in own]
        found = [task_records(get_task(place[0]), place[2], each) for place, each in zip(places, read, strict=True)]
        common = [record for each, records in zip(own, found, strict=True) if each is None for record in records]
        flags = iter(hold_out(common, self.held_out, self.seed))
        for (task, name, _), each, records in zip(places, own, found, strict=True):
            kept = records if each else [record for record in records if next(flags) == (split != "train")]
            yield task, name, kept


def _places(folders: Folders) -> Iterator[tuple[str, str, Place]]:
    """Task, name (empty where the task has no other) and place of each."""
    for task, named in folders.items():
        places = named if isinstance(named, list) else [named]
        for number, place in enumerate(places, 1):
            yield task, _name(place, number) if len(places) > 1 else "", place


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
