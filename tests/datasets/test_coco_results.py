"""Instances as COCO json, read back by faster-coco-eval and by our own reader."""

import json

import numpy as np
import pytest
from faster_coco_eval import COCO
from faster_coco_eval import mask as coco_mask

from lightning_sal.datasets.coco_results import Instances, instance, write_instances
from lightning_sal.datasets.segmentations import draw

RANDOM = np.random.default_rng(0)
BLOB = np.zeros((700, 1100), bool)
BLOB[40:660, 90:1000] = True
BLOB[300:310] = False
MASKS = {
    "nothing": np.zeros((5, 7), bool),
    "everything": np.ones((5, 7), bool),
    "first pixel": np.eye(1, 12, dtype=bool).reshape(3, 4),
    "last pixel": np.eye(1, 12, 11, dtype=bool).reshape(3, 4),
    "noise": RANDOM.random((61, 43)) < 0.5,
    "sparse": RANDOM.random((130, 90)) < 0.01,
    "large": BLOB,
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_run_lengths_are_those_of_coco(mask):
    fields = instance(mask)
    segmentation = fields["segmentation"]
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert segmentation["counts"].encode() == theirs["counts"]
    assert (coco_mask.decode(segmentation) == mask).all()
    assert (draw(segmentation, mask.shape) == mask).all()
    assert fields["area"] == mask.sum() == coco_mask.area(segmentation)
    assert fields["bbox"] == coco_mask.toBbox(segmentation).tolist()


def test_the_file_is_a_data_set_and_its_annotations_are_results(tmp_path):
    path = tmp_path / "instances.json"
    noise = MASKS["noise"]
    write_instances(
        path,
        iter([
            Instances("a.jpg", noise.shape, [noise, ~noise], ["left", "right"], 0.75),
            Instances("b.jpg", (9, 8), [], [], 0.5),
            Instances("c.jpg", (5, 7), [MASKS["nothing"]], ["none"], 0.25),
        ]),
    )  # fmt: skip
    assert [entry.name for entry in tmp_path.iterdir()] == ["instances.json"]
    written = json.loads(path.read_text())
    assert [(i["file_name"], i["height"], i["width"]) for i in written["images"]] == [
        ("a.jpg", 61, 43), ("b.jpg", 9, 8), ("c.jpg", 5, 7)
    ]  # fmt: skip
    truth = COCO(str(path))
    results = truth.loadRes(written["annotations"])
    assert [len(results.getAnnIds(imgIds=[image])) for image in (1, 2, 3)] == [2, 0, 1]
    first, second, third = results.loadAnns(results.getAnnIds())
    assert (results.annToMask(second).astype(bool) == ~noise).all()
    assert (first["score"], third["score"], third["area"]) == (0.75, 0.25, 0)
    assert [annotation["expression"] for annotation in written["annotations"]] == ["left", "right", "none"]
