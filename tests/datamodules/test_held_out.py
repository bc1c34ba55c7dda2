"""The share of a folder that is held out: never trained on, stable, and the folder's own where it has splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_sal.datamodules import CoSODDataModule, SODDataModule, UnifiedDataModule


def save(path: Path, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((9, 12), value, np.uint8)).save(path)


def pairs(folder: Path, *names: str) -> str:
    for name in names:
        save(folder / f"images/{name}.png")
        save(folder / f"masks/{name}.png")
    return str(folder)


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:03}" for number in range(first, last)]


def keys(data: Any, split: str) -> list[str]:
    """The keys of the samples of a split, without the number that a part of a group has."""
    if split != "train":
        data.setup({"val": "validate"}.get(split, split))
        return [group.key for batch in data.loaders[split] for group in batch]
    data.setup("fit")
    stream = data.streams["rl"]
    return sorted({group.key.rpartition("/")[0] or group.key for _ in range(3 * len(stream)) for group in next(stream)})


def test_what_is_held_out_is_never_trained_on_and_all_of_it_is_tested(tmp_path):
    folder = pairs(tmp_path, *numbered(0, 60))
    data = SODDataModule(folder, held_out=0.2, val_size=5)
    train, test = keys(data, "train"), keys(data, "test")
    assert sorted(train + test) == numbered(0, 60)
    assert 5 <= len(test) <= 20
    val = keys(data, "val")
    assert len(val) == 5
    assert set(val) < set(test)
    assert keys(SODDataModule(folder, held_out=0.2, seed=1), "test") != test


def test_few_samples_to_validate_on_are_of_every_task(tmp_path):
    """The first batches alone hold all of them too, so that a limit of batches leaves none out."""
    few, many = pairs(tmp_path / "few", *numbered(0, 8)), pairs(tmp_path / "many", *numbered(10, 99))
    data = UnifiedDataModule(val={"sis": many, "sod": few}, val_size=6)
    assert [key.partition("/")[0] for key in keys(data, "val")] == ["sis", "sod"] * 3


def test_a_sample_keeps_its_side_when_others_are_added(tmp_path):
    before = keys(SODDataModule(pairs(tmp_path, *numbered(0, 30)), held_out=0.2), "test")
    after = keys(SODDataModule(pairs(tmp_path, *numbered(30, 60)), held_out=0.2), "test")
    assert [key for key in after if key < "030"] == before
    assert len(after) > len(before)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_of_two_photographs_one_is_held_out(tmp_path, share):
    data = SODDataModule(pairs(tmp_path, "a", "b"), held_out=share)
    assert sorted(keys(data, "train") + keys(data, "test")) == ["a", "b"]


def test_groups_stay_whole(tmp_path):
    for group in ("cow", "dog", "cat", "owl"):
        for i in range(5):
            save(tmp_path / f"image/{group}/{i}.png")
            save(tmp_path / f"gt/{group}/{i}.png")
    data = CoSODDataModule(str(tmp_path), group_size=3, held_out=0.2)
    test = keys(data, "test")
    held = {key.partition("/")[0] for key in test}
    assert len(test) == 2 * len(held)  # parts of 3 and 2
    assert set(keys(data, "train")) == {"cow", "dog", "cat", "owl"} - held


def test_a_folder_with_splits_is_tested_on_its_own(tmp_path):
    for split, names in {"train": "abc", "val": "de", "test": "fgh"}.items():
        pairs(tmp_path / split, *names)
    data = SODDataModule(str(tmp_path), held_out=0.2)
    assert [keys(data, split) for split in ("train", "val", "test")] == [list("abc"), list("de"), list("fgh")]
    trains = SODDataModule(str(tmp_path / "train"), held_out=0.4)  # one that has none inside
    assert sorted(keys(trains, "train") + keys(trains, "test")) == list("abc")


def test_a_folder_without_val_is_validated_on_its_test_split(tmp_path):
    for split, names in {"DUTS-TR": "abc", "DUTS-TE": "de"}.items():
        pairs(tmp_path / split, *names)
    data = SODDataModule(str(tmp_path), held_out=0.2)
    assert keys(data, "train") == list("abc")
    assert keys(data, "val") == keys(data, "test") == list("de")


def test_a_folder_that_is_named_to_test_on_is_the_one(tmp_path):
    first, second = pairs(tmp_path / "a", *numbered(0, 9)), pairs(tmp_path / "b", *numbered(9, 12))
    data = SODDataModule(first, second, second, held_out=0.3)
    assert keys(data, "train") == numbered(0, 9)
    assert keys(data, "val") == keys(data, "test") == numbered(9, 12)


def test_questions_about_one_photograph_are_on_one_side_in_all_tasks(tmp_path):
    pairs(tmp_path, *numbered(0, 12))
    lines = [
        {"task": "sod", "images": [f"images/{name}.png"], "masks": [f"masks/{name}.png"]}
        for name in numbered(0, 12)
        for _ in range(3)
    ]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = UnifiedDataModule({"sod": [str(tmp_path), str(tmp_path / "lines.jsonl")]}, held_out=0.3)

    def shown(split: str) -> set[str]:
        data.setup("fit" if split == "train" else split)
        batches = data.loaders["test"] if split == "test" else [next(data.streams["rl"]) for _ in range(100)]
        return {group.paths[0] for batch in batches for group in batch}

    train, test = shown("train"), shown("test")
    assert not train & test
    assert len(train | test) == 12
    assert len(keys(data, "test")) == 4 * len(test)


def test_too_few_and_wrong_shares_are_one_line(tmp_path):
    (tmp_path / "two.jsonl").write_text("\n".join(
        json.dumps({"task": "sod", "images": ["images/a.png"], "masks": ["masks/a.png"]}) for _ in range(2)
    ))  # fmt: skip
    for place in (pairs(tmp_path, "a"), str(tmp_path / "two.jsonl")):
        for stage in ("fit", "test"):
            with pytest.raises(
                ValueError, match=r"^sod: 1 sample .* give 2 or more, or name folders.*init_args\.test$"
            ):
                UnifiedDataModule({"sod": place}, held_out=0.2).setup(stage)
    with pytest.raises(ValueError, match="held_out is a share"):
        SODDataModule("x", held_out=1)
    with pytest.raises(ValueError, match="val_size is at least 1"):
        SODDataModule("x", val_size=0)
