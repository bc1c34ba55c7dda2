"""A task of your own: camouflaged object detection, the objects that one overlooks.

    PYTHONPATH=examples lightning fit --config conf/real/sod.yaml --config examples/new_task.yaml \\
        --data.init_args.train data/COD

A task is one object, which `register` makes known, and a datamodule that yields image groups of it. Both stand in one file:
whatever config names the datamodule by its class_path knows the task. Instruction, format reward, correctness, metrics
(`val/cod/s_measure` and the like), logs and panels then follow from the object. A grammar that tags cannot state is a
subclass of `Task` with a `parse` of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lightning_sal.datamodules import ImageGroupsDataModule, PredictDataModule
from lightning_sal.datasets import ImageGroups, Layout, jsonl_records
from lightning_sal.datasets.layouts import flat_pairs
from lightning_sal.datasets.sod import MaskFile
from lightning_sal.tasks import Task, register

FORM = "<answer><rg>phrase</rg></answer>"
COD = register(
    Task(
        name="cod",
        title="camouflaged object detection",
        instruction=f"What hides in this image? Say why it is hard to see, then name it: <think>reasons</think>{FORM}",
        brief=f"What hides in this image? Name it: {FORM}",
        tag="rg",  # each expression a part of one region; "ins" would make each an instance
        semantic="forbidden",  # what hides is described, since its category alone finds what is easily seen
    )
)
LAYOUT = Layout(
    task=COD.name,
    looked_for="a folder Imgs beside a folder GT",  # as CAMO, COD10K and NC4K have them
    match=partial(flat_pairs, task=COD.name, annotate=MaskFile),
)


class CamouflageDataModule(ImageGroupsDataModule):
    """Photographs with a mask of what hides in them.

    Args:
        train: Folder to train on, null for none.
        val: Folder to validate on, null for none.
        test: Folder to test on, null for none.
        sft: JSONL of annotated responses of task "cod", a second stream for interleaved SFT; null for none.
        **kwargs: See `ImageGroupsDataModule`.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        sft: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.folders, self.sft = {"train": train, "val": val, "test": test}, sft

    def training_datasets(self) -> dict[str, ImageGroups]:
        annotated = None if self.sft is None else ImageGroups(jsonl_records(self.sft))
        found = {"rl": self.evaluation_dataset("train"), "sft": annotated}
        return {stream: dataset for stream, dataset in found.items() if dataset is not None}

    def evaluation_dataset(self, split: str) -> ImageGroups | None:
        folder = self.folders[split]
        return None if folder is None else ImageGroups(LAYOUT.records(folder, split))


class CamouflagePredictDataModule(PredictDataModule):
    """Photographs of your own for `lightning predict`.

    Args:
        **kwargs: See `PredictDataModule`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(task=COD.name, **kwargs)
