"""Annotated responses alone, for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_sal.datamodules.base import ImageGroupsDataModule
from lightning_sal.datasets import ImageGroups, jsonl_records
from lightning_sal.tasks import load_task


class SFTDataModule(ImageGroupsDataModule):
    """Image groups with responses from JSONL files; `lightning_sal.datasets.jsonl` has the format.

    Args:
        train: JSONL to train on, null for none.
        val: JSONL to validate on, null for none.
        test: JSONL to test on, null for none.
        tasks: Tasks of your own that the lines name, as FILE.py:NAME.
        **kwargs: See `ImageGroupsDataModule`.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        tasks: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for task in tasks:
            load_task(task)
        self.files = {"train": train, "val": val, "test": test}

    def training_datasets(self) -> dict[str, Any]:
        dataset = self._dataset("train")
        return {} if dataset is None else {"sft": dataset}

    def evaluation_dataset(self, split: str) -> ImageGroups | None:
        return self._dataset(split)

    def _dataset(self, split: str) -> ImageGroups | None:
        path = self.files[split]
        return None if path is None else ImageGroups(jsonl_records(path))
