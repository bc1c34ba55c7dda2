"""The lines that name samples, read back by the reader of SFT JSONL: the same masks come out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.annotation.samples import key_of, list_samples
from lightning_sal.datasets import jsonl_records
from tests.annotation.parts import photograph, save, write_cosod, write_sis, write_sod

SAID = "<think>x</think><answer><rg>x</rg></answer>"


def samples(task: str, data: Path, folder: Path, group_size: int = 8, split: str | None = None):
    return list_samples(task, data, folder, split=split, group_size=group_size)


def assert_read_back(listed, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sft.jsonl"
    path.write_text("".join(json.dumps(sample.fields | {"response": SAID}) + "\n" for sample in listed))
    for sample, record in zip(listed, jsonl_records(path), strict=True):
        before, after = sample.record.read(), record.read()
        assert [Path(p).resolve() for p in after.paths] == [Path(p).resolve() for p in before.paths]
        assert all(torch.equal(a, b) for a, b in zip(after.masks, before.masks, strict=True))


def write_coco(root: Path, *, size: tuple[int, int], orientation: int = 1) -> Path:
    """One photograph of 60 x 80 pixels as displayed, and segmentations drawn in a frame of `size` (height, width)."""
    image = Image.fromarray(photograph(1) if orientation == 1 else np.rot90(photograph(1)).copy())
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / "images").mkdir(parents=True)
    image.save(root / "images/a.jpg", exif=exif)
    height, width = size
    polygon = [0.1 * width, 0.2 * height, 0.5 * width, 0.2 * height, 0.5 * width, 0.9 * height]
    counts = [0, height * 3, height * (width - 3)]
    parts = [[polygon], {"size": [height, width], "counts": counts}]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "annotations": [{"id": i, "image_id": 1, "segmentation": part} for i, part in enumerate(parts)],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root


def test_sod(tmp_path):
    listed = samples("sod", write_sod(tmp_path / "data", 3), tmp_path / "lists")
    assert listed[1].fields == {"task": "sod", "images": ["../data/images/1.png"], "masks": ["../data/masks/1.png"]}
    assert_read_back(listed, tmp_path / "lists")


def test_colour_coded_instances(tmp_path):
    listed = samples("sis", write_sis(tmp_path / "data", [2, 1]), tmp_path)
    assert listed[0].fields == {"task": "sis", "images": ["data/image/0.png"], "annotation": "data/gt/0.png"}
    assert_read_back(listed, tmp_path)


def test_coco_segmentations_of_the_displayed_size_stay_as_they_are(tmp_path):
    (listed,) = samples("sis", write_coco(tmp_path / "data", size=(60, 80)), tmp_path)
    content = json.loads((tmp_path / "data/instances.json").read_text())
    assert listed.fields["annotation"] == [entry["segmentation"] for entry in content["annotations"]]
    assert_read_back([listed], tmp_path)


@pytest.mark.parametrize(("size", "orientation"), [((30, 40), 1), ((80, 60), 6), ((80, 60), 8)])
def test_coco_segmentations_of_another_frame_become_masks_of_the_displayed_one(tmp_path, size, orientation):
    listed = samples("sis", write_coco(tmp_path / "data", size=size, orientation=orientation), tmp_path)
    assert listed[0].record.read().masks[0].shape == (2, 60, 80)
    assert_read_back(listed, tmp_path)


def test_large_groups_are_cut_and_keep_their_category(tmp_path):
    data = write_cosod(tmp_path / "data", {"big_cat": list(range(10)), "dog": [11, 12]})
    listed = samples("cosod", data, tmp_path, group_size=4)
    assert [(sample.category, len(sample.fields["images"])) for sample in listed] == [
        ("big_cat", 4), ("big_cat", 3), ("big_cat", 3), ("dog", 2)
    ]  # fmt: skip
    assert_read_back(listed, tmp_path)


def test_instances_in_a_file_each_are_named_by_their_files(tmp_path):
    write_sod(tmp_path / "data", 2)
    line = {"task": "sis", "images": ["images/0.png"], "masks": ["masks/0.png", "masks/1.png"]}
    (tmp_path / "data/a.jsonl").write_text(json.dumps(line) + "\n")
    listed = samples("sis", tmp_path / "data/a.jsonl", tmp_path)
    assert listed[0].fields["masks"] == ["data/masks/0.png", "data/masks/1.png"]
    assert_read_back(listed, tmp_path)


def test_what_has_no_mask_is_listed_too(tmp_path):
    (write_sod(tmp_path / "data", 2) / "masks/1.png").unlink()
    assert samples("sod", tmp_path / "data", tmp_path)[1].fields == {"task": "sod", "images": ["data/images/1.png"]}


def test_a_sample_is_known_by_task_images_and_annotation_alone(tmp_path):
    fields = samples("sod", write_sod(tmp_path / "data", 1), tmp_path)[0].fields
    assert key_of(fields | {"response": "x"}) == key_of(dict(reversed(fields.items())) | {"reason": "y"})
    others = [
        fields | {"task": "cosod"},
        fields | {"images": ["b"]},
        fields | {"masks": ["b"]},
        {**fields, "annotation": "c"},
    ]
    assert len({key_of(each) for each in [fields, *others]}) == 5


def test_splits_are_told_apart(tmp_path):
    write_sod(tmp_path / "data/train", 2)
    write_sod(tmp_path / "data/test", 3)
    assert len(samples("sod", tmp_path / "data", tmp_path, split="train")) == 2
    with pytest.raises(ValueError, match="2 of the datasets found here fit"):
        samples("sod", tmp_path / "data", tmp_path)


def test_photographs_in_folders_of_one_name_stay_apart(tmp_path):
    save(tmp_path / "data/images/0.png", photograph(0))
    save(tmp_path / "data/masks/0.png", np.full((60, 80), 255, np.uint8))
    (one,) = samples("sod", tmp_path / "data", tmp_path)
    (other,) = samples("sod", tmp_path / "data", tmp_path / "data")
    assert one.key != other.key  # another list has other paths
