"""COCO json for detection: a sample for each image and category, by hand."""

import json
from copy import deepcopy

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import jsonl_records, task_records
from lightning_sal.tasks import get_task

CATEGORIES = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cell phone"}, {"id": 9, "name": "cat"}]


def annotation(key, image, category, box, **fields):
    return {"id": key, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0} | fields


def listing(*annotations, images=2):
    """Photographs 1.jpg, 2.jpg, ... of 12 x 9 pixels."""
    listed = [{"id": n, "file_name": f"{n}.jpg", "height": 9, "width": 12} for n in range(1, images + 1)]
    return {"images": listed, "annotations": deepcopy(annotations), "categories": [*CATEGORIES]}


def write(root, content, name="annotations/instances_val2017.json", photographs="val2017"):
    for image in content["images"]:
        path = root / photographs / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(path)
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def records(where, split=None):
    return task_records(get_task("detection"), where, split)


SOUND = (
    annotation(1, 1, 3, [1, 2, 3, 4]),
    annotation(2, 1, 3, [5, 0, 7, 9]),
    annotation(3, 1, 7, [0.5, 0.25, 2.25, 3]),
    annotation(4, 2, 3, [0, 0, 12, 9]),
    annotation(5, 2, 9, [0, 0, 12, 9], iscrowd=1),
)


def test_a_sample_for_each_image_and_category_that_occurs_on_it(tmp_path, caplog):
    path = write(tmp_path, listing(*SOUND, images=3))
    groups = [record.read() for record in records(tmp_path)]
    assert [(group.key, group.question) for group in groups] == [
        ("1/dog", "all dog"),
        ("1/cell phone", "all cell phone"),
        ("2/dog", "all dog"),
    ]
    assert [group.boxes[0].tolist() for group in groups] == [
        [[1, 2, 4, 6], [5, 0, 12, 9]],
        [[0.5, 0.25, 2.75, 3.25]],
        [[0, 0, 12, 9]],
    ]
    assert {group.task for group in groups} == {"detection"}
    assert caplog.messages == [f"{path}: 1 of 5 annotations are marked iscrowd and left out"]
    assert [record.key for record in records(path)] == [group.key for group in groups]


def test_splits_are_found_as_coco_lies_and_share_no_photograph(tmp_path):
    write(tmp_path, listing(SOUND[0]))
    write(tmp_path, listing(SOUND[3]), "annotations/instances_train2017.json", "train2017")
    assert [record.key for record in records(tmp_path, "val")] == ["1/dog"]
    (record,) = records(tmp_path, "train")
    assert record.read().paths[0].endswith("train2017/2.jpg")


def test_coco_json_is_of_salient_instances_unless_detection_is_named(tmp_path, capsys):
    polygon = {"segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]]}
    write(tmp_path, listing(SOUND[0] | polygon, images=1))
    assert check_data([str(tmp_path)]) == 0
    assert "1 samples (sis)" in capsys.readouterr().out
    assert check_data([str(tmp_path), "--task", "detection"]) == 0
    assert "1 samples (detection)" in capsys.readouterr().out


def test_every_fault_is_named_by_file_image_and_category(tmp_path, capsys):
    path = write(
        tmp_path,
        listing(
            annotation(1, 1, 3, [5, 5, -3, 2]),  # reversed
            annotation(2, 1, 3, [20, 2, 5, 5]),  # outside
            annotation(3, 1, 7, [1, 1, 4]),
            annotation(4, 2, 3, [1, 1, 0, 4]),  # empty
            annotation(5, 8, 3, [1, 1, 2, 2]),
        ),
    )
    (tmp_path / "val2017/2.jpg").unlink()
    assert check_data([str(path), "--task", "detection"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{path}: image 1, dog: box 1, [5, 5, 2, 7]: reversed: x0, y0, x1, y1 with x0 < x1 and y0 < y1 must stand",
        f"{path}: image 1, dog: box 2, [20, 2, 25, 7]: outside of the image, 12 x 9 pixels",
        f"{path}: image 1, cell phone: {path}: annotation 3: `bbox` is [1, 1, 4], where x, y, width, height must stand",
        f"{path}: image 2, dog: {tmp_path / 'val2017/2.jpg'}: no such file",
        f"{path}: image 2, dog: box 1, [1, 1, 1, 5]: empty",
        f"{path}: image 8, dog: {path}: annotation 5: belongs to image 8, which the file does not list",
    ]
    assert "4 samples (detection)" in last
    assert last.endswith("4 images, 6 faults")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("categories"), "`categories` is no list of objects"),
        (lambda c: c["categories"].append({"id": 8}), "category 4 of the list: it needs `id` and `name`"),
        (
            lambda c: c["categories"].append({"id": 8, "name": "dog "}),
            "category 4 of the list: 'dog ' or its id is that",
        ),
        (
            lambda c: c["annotations"][0].update(category_id=4),
            "annotation 1: its `category_id` is 4, which the file does",
        ),
    ],
)
def test_what_is_no_list_of_categories_is_one_line(tmp_path, change, reason):
    content = listing(*SOUND)
    change(content)
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=reason) as error:
        records(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_boxes_become_lines_of_our_own(tmp_path, capsys):
    path = write(tmp_path / "coco", listing(*SOUND))
    target = tmp_path / "out/det.jsonl"
    assert convert([str(path), str(target), "--to", "jsonl", "--task", "detection"]) == 0
    assert "no masks" not in capsys.readouterr().out
    ours, theirs = ([record.read() for record in found] for found in (jsonl_records(target), records(path)))
    assert [(group.question, group.boxes[0].tolist()) for group in ours] == [
        (group.question, group.boxes[0].tolist()) for group in theirs
    ]
    assert check_data([str(target)]) == 0
    assert not [each for each in target.parent.iterdir() if each != target]
