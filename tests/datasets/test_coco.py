import json
import os
from pathlib import Path

import numpy as np
import pytest

from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.segmentations import draw
from lightning_sal.datasets.sis import LAYOUT


def run_lengths(mask: np.ndarray) -> list[int]:
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = bool(pixel)
        runs[-1] += 1
    return runs


def as_string(runs: list[int]) -> str:
    """COCO's own writer (rleToString of its maskApi.c), followed step by step."""
    text = ""
    for i, run in enumerate(runs):
        x = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            c, x = x & 0x1F, x >> 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_as_list_and_as_string(seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((6, 7)) > 0.5, np.ones((9, 11), bool))
    for counts in (run_lengths(mask), as_string(run_lengths(mask))):
        assert np.array_equal(draw({"size": [54, 77], "counts": counts}, (54, 77)), mask)


def test_polygons_cover_the_pixels_whose_centres_they_hold():
    mask = draw([[2, 1, 6, 1, 6, 4, 2, 4], [9.4, 6.4, 10.6, 6.4, 10.6, 7.6, 9.4, 7.6]], (9, 12))
    expected = np.zeros((9, 12), bool)
    expected[1:4, 2:6] = expected[6:8, 9:11] = True
    assert np.array_equal(mask, expected)


def test_a_disc_has_the_area_of_a_disc():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    points = np.stack([50 + 30.3 * np.cos(angle), 45 + 30.3 * np.sin(angle)], axis=1)
    assert draw([points.ravel().tolist()], (100, 100)).sum() == pytest.approx(np.pi * 30.3**2, rel=0.005)


def test_a_polygon_beyond_the_edge_is_clipped():
    assert draw([[-5, -5, 40, -5, 40, 40, -5, 40]], (9, 12)).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3]],
        [[1, 1, 5, 5]],
        [["a", "b", "c", "d", "e", "f"]],
        [[0, 0, float("nan"), 5, 5, 5]],
        {"size": [9, 12], "counts": [5, 5]},
        {"size": [12, 9], "counts": [108]},
        {"size": [9, 12], "counts": "\x01\x02"},
        {"size": [9, 12], "counts": [200, -92]},
        {"counts": [108]},
        None,
        [],
    ],
)
def test_a_malformed_segmentation_is_named(save, tmp_path, segmentation):
    save("images/a.jpg")
    image = {"id": 1, "file_name": "a.jpg", "height": 9, "width": 12}
    annotation = {"id": 77, "image_id": 1, "segmentation": segmentation}
    (tmp_path / "all.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    record = LAYOUT.records(tmp_path)[0]
    with pytest.raises(UnreadableSample, match="annotation 77") as error:
        record.read()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"annotations": [,', r"all\.json:1: not JSON"),
        ('{"annotations": []}', "images"),
        ('{"images": 3, "annotations": 4}', "not COCO"),
    ],
)
def test_a_malformed_json_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "all.json").write_text(content)
    with pytest.raises(ValueError, match=reason) as error:
        LAYOUT.records(tmp_path)
    assert "\n" not in str(error.value)


BOX, OTHER = [2, 1, 6, 1, 6, 4, 2, 4], [7, 5, 11, 5, 11, 8, 7, 8]  # 4 x 3 pixels each


def listing(*names: str, **changes) -> dict:
    """A COCO json of two instances an image."""
    images = [{"id": n, "file_name": name, "height": 9, "width": 12} for n, name in enumerate(names, 1)]
    annotations = [
        {"id": 10 * image["id"] + n, "image_id": image["id"], "segmentation": [ring], "iscrowd": 0} | changes
        for image in images
        for n, ring in enumerate((BOX, OTHER))
    ]
    return {"images": images, "annotations": annotations}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def sums(records):
    return [record.read().masks[0].sum((1, 2)).tolist() for record in records]


@pytest.mark.parametrize(
    ("listed", "stored", "name"),
    [
        ("annotations/instances_default.json", "images/1.jpg", "1.jpg"),  # CVAT
        ("annotations/instances_default.json", "images/default/1.jpg", "1.jpg"),  # Datumaro
        ("annotations/instances_train2017.json", "train2017/1.jpg", "1.jpg"),  # COCO
        ("annotations/instances_train2017.json", "images/train2017/1.jpg", "1.jpg"),
        ("annotations/train/instances.json", "images/train/1.jpg", "1.jpg"),
        ("train/_annotations.coco.json", "train/1.jpg", "1.jpg"),  # Roboflow
        ("result.json", "images/1.jpg", "images\\1.jpg"),  # Label Studio on Windows
        ("instances.json", "images/1.jpg", "..\\images\\1.jpg"),  # X-AnyLabeling
        ("annotations/instances.JSON", "images/1.jpg", "../images/1.jpg"),
        ("instances.json", "images/1.jpg", "C:\\Users\\me\\Pictures\\1.jpg"),
        ("labels.json", "data/1.jpg", "1.jpg"),  # FiftyOne
    ],
)
def test_photographs_are_found_where_tools_put_them(save, tmp_path, listed, stored, name):
    save(f"set/{stored}")
    save(f"set/thumbs/{Path(stored).name}")
    write(tmp_path / "set" / listed, listing(name))
    for root in ("set", f"set/{listed}"):
        (record,) = LAYOUT.records(tmp_path / root)
        assert record.photographs[0].path.resolve() == tmp_path / "set" / stored
        assert sums([record]) == [[12, 12]]


def test_a_json_is_found_from_the_folder_that_it_lies_in(save, tmp_path, monkeypatch):
    save("images/1.jpg")
    write(tmp_path / "annotations/instances.json", listing("1.jpg"))
    monkeypatch.chdir(tmp_path / "annotations")
    assert sums(LAYOUT.records("instances.json")) == sums(LAYOUT.records(".")) == [[12, 12]]


def test_a_split_takes_no_photograph_of_another(save, tmp_path):
    save("val2017/1.jpg")
    write(tmp_path / "annotations/instances_train2017.json", listing("1.jpg"))
    (record,) = LAYOUT.records(tmp_path)
    assert "no such file" in record.problems()[0]


def test_a_folder_of_annotations_alone_opens_the_one_above(save, tmp_path):
    """The next data set's photographs are not this one's."""
    save("other/images/1.jpg")
    write(tmp_path / "mine/instances.json", listing("1.jpg"))
    (record,) = LAYOUT.records(tmp_path / "mine")
    assert "no such file" in record.problems()[0]


def test_captions_and_panoptic_segments_are_no_instances(save, tmp_path):
    save("images/1.jpg")
    write(tmp_path / "annotations/instances_train.json", listing("1.jpg"))
    write(tmp_path / "annotations/captions_train.json", {"images": [], "annotations": [{"caption": "a kite"}]})
    write(tmp_path / "annotations/panoptic_train.json", {"images": [], "annotations": [{"segments_info": []}]})
    assert sums(LAYOUT.records(tmp_path, "train")) == [[12, 12]]


def test_where_all_are_marked_as_crowds_they_are_the_instances(save, tmp_path, caplog):
    save("1.jpg")
    path = write(tmp_path / "all.json", listing("1.jpg", iscrowd=1))
    assert sums(LAYOUT.records(tmp_path)) == [[12, 12]]
    assert caplog.messages == [f"{path}: all 2 annotations are marked iscrowd: they are taken for instances"]


def test_crowds_among_instances_are_left_out_and_counted(save, tmp_path, caplog):
    save("1.jpg")
    content = listing("1.jpg")
    content["annotations"][0]["iscrowd"] = 1
    path = write(tmp_path / "all.json", content)
    assert sums(LAYOUT.records(tmp_path)) == [[12]]
    assert caplog.messages == [f"{path}: 1 of 2 annotations are marked iscrowd and left out"]


def test_what_no_tool_needs_may_be_missing(save, tmp_path):
    """Categories, ids of annotations, sizes; an image without annotations is an empty ground truth."""
    save("1.jpg")
    save("2.jpg")
    content = listing("1.jpg", "2.jpg")
    del content["images"][0]["height"], content["annotations"][2:]
    content["images"][1] |= {"height": None}
    for annotation in content["annotations"]:
        del annotation["id"], annotation["iscrowd"]
    write(tmp_path / "all.json", content)
    assert sums(LAYOUT.records(tmp_path)) == [[12, 12], []]


def test_a_box_alone_is_a_fault_of_its_image(save, tmp_path):
    save("1.jpg")
    save("2.jpg")
    content = listing("1.jpg", "2.jpg")
    content["annotations"][0] |= {"segmentation": [], "bbox": [2, 1, 4, 3]}
    path = write(tmp_path / "all.json", content)
    first, second = LAYOUT.records(tmp_path)
    (fault,) = first.problems()
    assert fault.startswith(f"{path}: annotation 10: ")
    assert "a box alone is no mask" in fault
    assert sums([second]) == [[12, 12]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["images"][1].update(id=1), "the id 1 belongs to several images"),
        (lambda c: c["images"][1].update(file_name="./1.jpg"), "images 1 and 2 are one file, './1.jpg'"),
        (lambda c: c["images"][1].update(file_name=7), "image 2 of the list"),
        (lambda c: c["images"][1].update(file_name=""), "image 2: '' names no file"),
        (lambda c: c["images"][1].update(id=[2]), "image 2 of the list"),
        (lambda c: c["images"][1].update(height="tall"), r"image 2: \('tall', 12\) is no height and width"),
        (lambda c: c["images"][1].update(height=1e400), "image 2: .* is no height and width"),
        (lambda c: c["images"].append([]), "`images` is no list of objects"),
        (lambda c: c.update(annotations={}), "`annotations` is no list of objects"),
        (lambda c: c["annotations"][0].update(iscrowd="no"), "annotation 10: `iscrowd` is 'no'"),
        (lambda c: c["annotations"][0].update(image_id={}), "annotation 10: its `image_id` is {}"),
    ],
)
def test_what_is_no_coco_json_is_named_in_one_line(tmp_path, change, reason):
    content = listing("1.jpg", "2.jpg")
    change(content)
    path = write(tmp_path / "all.json", content)
    with pytest.raises(ValueError, match=reason) as error:
        LAYOUT.records(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_annotation_twice_or_of_no_image_is_a_fault_and_the_others_are_read(save, tmp_path):
    for number in (1, 2):
        save(f"{number}.jpg")
    content = listing("1.jpg", "2.jpg")
    content["annotations"] += [content["annotations"][0], {"id": 9, "image_id": 7, "segmentation": [BOX]}]
    path = write(tmp_path / "all.json", content)
    first, second, missing = LAYOUT.records(tmp_path)
    assert first.problems() == [f"{path}: annotation 10: comes twice on its image"]
    assert missing.problems() == [f"{path}: annotation 9: belongs to image 7, which the file does not list"]
    assert sums([second]) == [[12, 12]]


@pytest.mark.parametrize("code", ["utf-16", "utf-16-le"])
def test_a_json_in_utf_16_is_named(tmp_path, code):
    (tmp_path / "all.json").write_bytes(json.dumps(listing("1.jpg")).encode(code))
    with pytest.raises(ValueError, match=r"all\.json: written in UTF-16"):
        LAYOUT.records(tmp_path)


def test_a_pipe_is_no_list(tmp_path):
    os.mkfifo(tmp_path / "all.json")
    assert LAYOUT.candidates(tmp_path) == []
