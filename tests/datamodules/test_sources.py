"""Samples from a source of the user's own, which a config names by its class_path in place of a folder."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
from jsonargparse import ArgumentParser
from PIL import Image

from lightning_sal.datasets.records import Photograph, Record


class Squares:
    """Grey squares, whose sizes tell the split.

    Args:
        folder: Where the files are made.
        number: How many there are.
    """

    def __init__(self, folder: str, number: int = 2) -> None:
        self.folder, self.number = folder, number

    def records(self, split: str) -> Sequence[Record]:
        size = {"train": 4, "val": 5, "test": 6}[split]
        paths = [Path(self.folder) / f"{split}{number}.png" for number in range(self.number)]
        for path in paths:
            Image.fromarray(np.full((size, size, 3), 127, np.uint8)).save(path)
        return [Record(path.stem, "", (Photograph(path),), reference=split) for path in paths]


def test_a_source_stands_in_place_of_a_folder(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    source = {"class_path": "tests.datamodules.test_sources.Squares", "init_args": {"folder": str(tmp_path)}}
    more = source | {"init_args": {"folder": str(tmp_path), "number": 3}}
    init_args = {"train": {"sod": source}, "test": {"sod": [source, more]}}
    data = {"class_path": "lightning_sal.datamodules.UnifiedDataModule", "init_args": init_args}
    module = parser.instantiate_classes(parser.parse_object({"data": data})).data
    assert module.known_tasks == module.training_tasks == ["sod"]

    module.setup("fit")
    (batch,) = (batch for batch, _ in zip(module.train_dataloader(), range(1), strict=False))
    (group,) = batch.groups
    assert (group.task, group.reference, group.images[0].shape) == ("sod", "train", (4, 4, 3))
    module.setup("test")
    groups = [group for batch in module.test_dataloader() for group in batch.groups]
    assert len({group.key for group in groups}) == len(groups) == 5  # though both sources give the same keys
    assert {(group.task, group.images[0].shape) for group in groups} == {("sod", (6, 6, 3))}
