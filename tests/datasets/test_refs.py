import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datamodules import BenchmarksDataModule
from lightning_sal.datasets import jsonl_records, task_records
from lightning_sal.datasets.finding import find_samples
from lightning_sal.tasks import get_task

PHOTOGRAPHS = Path(__file__).parents[3] / "shared/data/sis/COCO-salient"
PERCEPTION = get_task("perception")


def square(number, image, x, y, side):
    ring = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {"id": number, "image_id": image, "bbox": [x, y, side, side], "segmentation": [ring], "iscrowd": 0}


INSTANCES = {
    "images": [{"id": n, "file_name": f"{name}.jpg", "height": 9, "width": 12} for n, name in enumerate("ab")],
    "annotations": [square(10, 0, 1, 1, 3), square(11, 0, 6, 2, 4), square(12, 1, 2, 2, 5)],
}


def ref(number, split, ann, *texts, image=0, **more):
    sentences = [{"sent": text, "raw": text.title(), "sent_id": 0} for text in texts or ("it",)]
    return {"ref_id": number, "split": split, "ann_id": ann, "image_id": image, "sentences": sentences} | more


REFS = [
    ref(1, "train", 10, "left square", "the small one"),
    ref(2, "testA", 11, "right square"),
    ref(3, "testB", 12, "square", image=1),
    ref(4, "val", 12, image=1),
]
GREFS = [
    ref(1, "val", [10, 11], "both squares", no_target=False),
    ref(2, "val", [-1], "a circle", image=1, no_target=True),
]


def write(save, name, refs, instances=INSTANCES):
    """References and their COCO json in a folder, beside the photographs in images/mscoco/train2014."""
    for letter in "ab":
        path = save(f"images/mscoco/train2014/{letter}.jpg")
    path = path.parents[3] / name
    path.parent.mkdir(exist_ok=True)
    lines = "\n".join(map(json.dumps, refs)) if path.suffix == ".jsonl" else json.dumps(refs)
    path.write_text(lines)
    (path.parent / "instances.json").write_text(json.dumps(instances))
    return path


@pytest.mark.parametrize("name", ["refcoco/refs(unc).json", "refcoco/refs(unc).jsonl"])
def test_a_sample_a_sentence_by_split(save, tmp_path, name):
    path = write(save, name, REFS)
    first, second = (record.read() for record in task_records(PERCEPTION, tmp_path / "refcoco", "train"))
    assert (first.question, second.question) == ("left square", "the small one")
    assert (first.key, second.key) == ("1.1", "1.2")
    assert first.boxes[0].tolist() == [[1, 1, 4, 4]]
    assert first.points is None
    drawn = np.zeros((9, 12), bool)
    drawn[1:4, 1:4] = True
    assert first.masks[0].tolist() == second.masks[0].tolist() == [drawn.tolist()]
    for place in (path.parent / "testB", path / "testB", tmp_path / "refcoco_testB"):
        (record,) = task_records(PERCEPTION, place, "test")
        assert (record.read().question, record.photographs[0].path.name) == ("square", "b.jpg")
        assert len(find_samples(PERCEPTION, [str(place)])) == 1
    with pytest.raises(ValueError, match=r"2 of the datasets found here fit \(refs\(unc\)\.jsonl?/testA, .*; name one"):
        task_records(PERCEPTION, tmp_path / "refcoco", "test")
    with pytest.raises(FileNotFoundError, match="testC: no such folder"):
        task_records(PERCEPTION, path.parent / "testC")


def test_splits_are_benchmarks_by_name(save, tmp_path):
    write(save, "refcoco/refs(unc).json", REFS)
    names = {f"refcoco_{split}": "perception" for split in ("val", "testA", "testB")}
    data = BenchmarksDataModule(names, root=str(tmp_path))
    data.setup("test")
    found = [(group.benchmark, group.question, group.key) for batch in data.test_dataloader() for group in batch]
    assert found == [
        ("refcoco_val", "it", "refcoco_val/4.1"),
        ("refcoco_testA", "right square", "refcoco_testA/2.1"),
        ("refcoco_testB", "square", "refcoco_testB/3.1"),
    ]


def test_several_objects_are_one_mask_and_none_is_a_mask_without_a_pixel(save, tmp_path, capsys):
    path = write(save, "grefcoco/grefs(unc).json", GREFS)
    both, none = (record.read() for record in task_records(PERCEPTION, path))
    assert both.boxes[0].tolist() == [[1, 1, 4, 4], [6, 2, 10, 6]]
    drawn = np.zeros((9, 12), bool)
    drawn[1:4, 1:4] = drawn[2:6, 6:10] = True
    assert both.masks[0].tolist() == [drawn.tolist()]
    assert (none.boxes[0].shape, none.masks[0].shape) == ((0, 4), (1, 9, 12))
    assert not none.masks[0].any()
    assert check_data([str(path)]) == 0
    assert (
        "2 samples (perception), 2 targets, 1 questions without a target, 2 images, no faults"
        in capsys.readouterr().out
    )


def test_every_fault_is_named_by_file_and_reference(save, tmp_path, capsys):
    annotations = [*INSTANCES["annotations"], square(20, 0, 1, 1, 3) | {"bbox": [1, 2]}, square(21, 0, 40, 40, 3)]
    annotations += [{"id": 22, "image_id": 0, "bbox": [1, 1, 3, 3]}, square(23, 0, 1, 1, 3) | {"bbox": [4, 4, -2, 2]}]
    path = write(
        save,
        "refcoco/refs.json",
        [
            *GREFS,
            ref(1, "val", 10),
            ref(None, "val", 10),
            ref(5, 3, 10),
            ref(6, "val", 99),
            ref(7, "val", 12),
            ref(8, "val", 10, image=5),
            ref(9, "val", 10) | {"sentences": []},
            ref(10, "val", 10) | {"sentences": [{"sent": " "}]},
            ref(11, "val", [-1]),
            ref(12, "val", [10], no_target=True),
            ref(13, "val", [10, 10]),
            ref(14, "val", 10, no_target="yes"),
            ref(15, "val", {"a": 1}),
            ref(20, "val", 20),
            ref(21, "val", 21),
            ref(22, "val", 22),
            ref(23, "val", 23),
            [],
        ],
        INSTANCES | {"annotations": annotations},
    )
    assert check_data([str(path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    reasons = [
        f"has the `ref_id` 1 of {path}: item 1",
        "its `ref_id` is None",
        "its `split` is 3",
        "its `ann_id` is 99, which the COCO json does not list",
        "annotation 12 is of image 1, not 0",
        "its `image_id` is 5, which the COCO json does not list",
        "no sentences: []",
        "no sentences: ",
        "`no_target` is false and `ann_id` is [-1]",
        "`no_target` is true and `ann_id` is [10]",
        "names an annotation twice",
        "its `no_target` is 'yes'",
        "its `ann_id` is {'a': 1}",
        "box 1, [1, 2]: not 4 numbers",
        "annotation 21: covers no pixel",
        "annotation 22: malformed segmentation: none",
        "box 1, [4, 4, 2, 6]: reversed",
        "not an object",
    ]
    found = [next((line for line in lines if reason in line), reason) for reason in reasons]
    assert all(line.startswith(f"{path}: item ") for line in found), found
    assert "1 boxes outside of their image, 1 boxes reversed" in last or "1 boxes reversed, 1 boxes outside" in last
    assert f"{len(lines)} faults" in last


@pytest.mark.parametrize(
    ("instances", "reason"),
    [
        ({}, "`images` is no list of objects with an `id`"),
        ({"images": [{"id": 1}], "annotations": []}, "an image has no `file_name`"),
        (INSTANCES | {"annotations": [{"id": [1]}]}, "`annotations` is no list of objects with an `id`"),
        (INSTANCES | {"images": INSTANCES["images"] * 2}, "2 of its images have the `id` of another"),
        ([], "not an object"),
    ],
    ids=range(5),
)
def test_a_bad_coco_json_is_one_line(save, tmp_path, instances, reason):
    path = write(save, "refcoco/refs.json", REFS, instances)
    with pytest.raises(ValueError, match=rf"instances\.json.*{reason}"):
        task_records(PERCEPTION, path, "val")
    (path.parent / "instances.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"refs\.json: one COCO json, instances\.json, .* and there is none"):
        task_records(PERCEPTION, path, "val")


def test_a_pickle_is_refused_and_never_opened(save, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    save("refcoco/a.jpg")
    path = tmp_path / "refcoco/refs(unc).p"
    path.write_bytes(pickle.dumps(Trap()))
    for place in (path, path.parent):
        with pytest.raises(
            ValueError, match=r"refs\(unc\)\.p: a pickle, which runs .* is not read; .*python -c "
        ) as error:
            task_records(PERCEPTION, place, "val")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "opened").exists()


def test_references_become_lines_of_our_own_with_the_same_masks(save, tmp_path):
    path = write(save, "grefcoco/grefs(unc).json", GREFS)
    target = tmp_path / "out/val.jsonl"
    assert convert([str(path), str(target), "--to", "jsonl"]) == 0
    both, none = map(json.loads, target.read_text().splitlines())
    assert (none["annotation"], none["boxes"], none["images"]) == ([], [[]], ["../images/mscoco/train2014/b.jpg"])
    assert both["boxes"] == [[[1, 1, 4, 4], [6, 2, 10, 6]]]
    for was, now in zip(task_records(PERCEPTION, path), jsonl_records(target), strict=True):
        assert was.read().masks[0].tolist() == now.read().masks[0].tolist()
    assert check_data([str(target)]) == 0


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="needs the photographs of ../shared/data")
def test_real_photographs_with_references_made_for_them(tmp_path, capsys):
    content = json.loads((PHOTOGRAPHS / "instances.json").read_text())
    found = content["annotations"][:12]
    refs = [ref(n, "val", each["id"], f"object {n}", image=each["image_id"]) for n, each in enumerate(found)]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(PHOTOGRAPHS / "images")
    assert check_data([str(tmp_path / "refs.json")]) == 0
    assert "12 samples (perception), 12 targets, 12 images, no faults" in capsys.readouterr().out
    for record in task_records(PERCEPTION, tmp_path):
        group = record.read()
        ((x0, y0, x1, y1),) = group.boxes[0].tolist()
        rows, columns = np.nonzero(group.masks[0][0].numpy())
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(box, [x0, y0, x1, y1], atol=1.5)
