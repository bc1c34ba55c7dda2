"""The benchmarks that papers report, several in one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.datasets import ImageGroups, layout_of, task_records
from lightning_sal.datasets.cosod import chunks
from lightning_sal.datasets.records import Record
from lightning_sal.tasks import get_task, load_task


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark that does not lie under its own name, or of which another split than the test split is meant.

    Args:
        task: As in `BenchmarksDataModule`.
        data: A folder or file below `root`; the name of a split may end it, as in refcoco/testA.
        split: "train", "val" or "test", where `data` holds several; null takes what it names.
    """

    task: str
    data: str
    split: str | None = None


class BenchmarksDataModule(ImageGroupsDataModule):
    """The test images of benchmarks, each evaluated under its own name.

    A benchmark lies in the folder `root/<name>`, as distributed; where it holds splits, the test split is taken. Each image
    of a CoSOD group is answered once, in parts of at most `group_size`.

    Args:
        benchmarks: Name of a benchmark, that of its folder -> its task: sod, sis, cosod, perception, detection, counting, or
            your own as FILE.py:NAME; or {task, data, split}, see `Benchmark`.
        root: The folder that they lie in.
        group_size: K, images of a CoSOD sample, >= 2.
        limit: Take only the first so many samples of each benchmark; null for all.
        max_unreadable: As in `ImageGroupsDataModule`; 0, since numbers over fewer images are not those of the benchmark.
        **kwargs: See `ImageGroupsDataModule`.
    """

    def __init__(
        self,
        benchmarks: dict[str, str | Benchmark],
        root: str = "data",
        group_size: int = 8,
        limit: int | None = None,
        max_unreadable: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_unreadable=max_unreadable, **kwargs)
        self.places = {
            name: Benchmark(where, name, "test") if isinstance(where, str) else where
            for name, where in benchmarks.items()
        }
        tasks = {name: load_task(place.task) for name, place in self.places.items()}
        for name, task in tasks.items():
            layout_of(task)
            if "." in name or "/" in name:
                raise ValueError(f"benchmark {name}: a name has no dot and no slash; rename or link its folder")
        self.benchmarks = {name: task.name for name, task in tasks.items()}
        self.root, self.group_size, self.limit = root, group_size, limit

    def training_datasets(self) -> dict[str, Any]:
        raise ValueError("BenchmarksDataModule has nothing to train on: use it with `lightning test`")

    @property
    def known_tasks(self) -> list[str]:
        """The tasks of its benchmarks."""
        return list(dict.fromkeys(self.benchmarks.values()))

    def evaluation_dataset(self, split: str) -> ImageGroups | None:
        if split != "test":
            return None
        return ImageGroups([record for name, task in self.benchmarks.items() for record in self._records(name, task)])

    def _records(self, name: str, task: str) -> list[Record]:
        place = self.places[name]
        found = task_records(get_task(task), Path(self.root) / place.data, place.split)
        records = chunks(found, self.group_size)[: self.limit]
        return [replace(record, benchmark=name, key=f"{name}/{record.key}") for record in records]
