"""Questions drawn from a COCO json: what is asked, what is right, and that a seed draws the same whatever the order."""

import json
import random
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.questions import main as questions
from lightning_sal.datasets import jsonl_records
from lightning_sal.datasets.coco import coco_records
from lightning_sal.datasets.images import read_instances_png
from lightning_sal.datasets.jsonl import read_lines
from lightning_sal.datasets.questions import QuestionSource, box_of, inner_point

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sis"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real photographs lie in ../shared/data, which is absent")
CATEGORIES = [{"id": n, "name": name} for n, name in enumerate(("dog", "cat", "kite"), 1)]


def ring(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def instance(key, image, category, box, **fields):
    return {"id": key, "image_id": image, "category_id": category, "segmentation": ring(*box)} | fields


# 1: two dogs, a cat. 2: three dogs, of which one lies in a crowd. 3: two cats. 4: nothing.
INSTANCES = [
    instance(1, 1, 1, (1, 1, 4, 4)),
    instance(2, 1, 1, (3, 3, 8, 6)),
    instance(3, 1, 2, (9, 0, 12, 3)),
    instance(4, 2, 1, (0, 0, 2, 2)),
    instance(5, 2, 1, (4, 4, 6, 6)),
    instance(6, 2, 1, (6, 6, 12, 9), iscrowd=1),
    instance(7, 3, 2, (0, 0, 12, 1)),
    instance(8, 3, 2, (0, 8, 12, 9)),
]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write(root, annotations=INSTANCES, name="instances_val.json", images=4, **fields):
    for number in range(1, images + 1):
        save(root / f"images/{number}.jpg", np.zeros((9, 12, 3), np.uint8))
    listed = [{"id": n, "file_name": f"{n}.jpg", "height": 9, "width": 12} | fields for n in range(1, images + 1)]
    path = root / name
    path.write_text(json.dumps({"images": listed, "annotations": deepcopy(annotations), "categories": CATEGORIES}))
    return path


def asked(path):
    """(name of the photograph, question, pixels of the mask, boxes, points) of each line, sorted."""
    groups = [record.read() for record in jsonl_records(path)]
    return sorted(
        (Path(g.paths[0]).stem, g.question, int(g.masks[0].sum()), g.boxes[0].tolist(), g.points[0].tolist())
        for g in groups
    )


def test_all_of_a_category_that_occurs_twice(tmp_path, capsys):
    """Dogs of 3 x 3 and 5 x 3 pixels that share one; cats of a row each. Where there is a crowd of dogs, none are asked."""
    target = tmp_path / "out/q.jsonl"
    assert questions([str(write(tmp_path)), str(target)]) == 0
    assert asked(target) == [
        ("1", "all dog", 9 + 15 - 1, [[1, 1, 4, 4], [3, 3, 8, 6]], [[2.5, 2.5], [4.5, 4.5]]),
        ("3", "all cat", 24, [[0, 0, 12, 1], [0, 8, 12, 9]], [[0.5, 0.5], [0.5, 8.5]]),
    ]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{target}: 2 questions on 2 images, 0 of them for what is not there"
    assert out[1].startswith("1 annotations are marked iscrowd")
    assert {tuple(np.unique(np.asarray(Image.open(file)))) for file in (tmp_path / "out/q_masks").iterdir()} == {
        (0, 255)
    }
    assert check_data([str(target)]) == 0


def test_one_of_a_category_is_asked_where_one_is_enough(tmp_path):
    target = tmp_path / "q.jsonl"
    assert questions([str(write(tmp_path)), str(target), "--least", "1"]) == 0
    assert [(image, question) for image, question, *_ in asked(target)] == [
        ("1", "all cat"),
        ("1", "all dog"),
        ("3", "all cat"),
    ]


def test_questions_for_what_is_not_there_have_an_empty_truth(tmp_path):
    target = tmp_path / "q.jsonl"
    assert questions([str(write(tmp_path)), str(target), "--no-target", "0.5", "--limit", "4"]) == 0
    empty = [(image, question) for image, question, *truth in asked(target) if truth == [0, [], []]]
    assert len(empty) == 2
    absent = {"1": {"kite"}, "2": {"cat", "kite"}, "3": {"dog", "kite"}, "4": {"dog", "cat", "kite"}}
    assert all(question.removeprefix("all ") in absent[image] for image, question in empty)
    assert {tuple(record.read().masks[0].shape) for record in jsonl_records(target)} == {(1, 9, 12)}
    assert check_data([str(target)]) == 0


def test_only_categories_that_are_known_to_be_absent_are_asked(tmp_path):
    """As images of LVIS state them; what is annotated in part is not asked either."""
    path = write(tmp_path, neg_category_ids=[3], not_exhaustive_category_ids=[1])
    found = drawn(path, no_target=0.75)
    assert len(found) == 4
    assert [pair for pair in found if pair[1] != "kite"] == [("3.jpg", "cat")]


def many(shuffle=None):
    """A listing of 40 images with up to four categories, in another order and with other ids for each generator."""
    rng = random.Random(0)
    boxes = [(n, c) for n in range(1, 41) for c in range(1, 5) for _ in range(rng.randrange(4))]
    order = list(range(1, 41))
    (shuffle or random.Random(1)).shuffle(order)
    ids = dict(zip(range(1, 41), order, strict=True)) if shuffle else {n: n for n in order}
    images = [{"id": ids[n], "file_name": f"{n:012}.jpg", "height": 9, "width": 12} for n in order]
    annotations = [instance(k, ids[n], c, (0, 0, 2, 2)) for k, (n, c) in enumerate(boxes)]
    categories = [{"id": c, "name": f"kind {c}"} for c in range(1, 6)]
    if shuffle:
        shuffle.shuffle(annotations)
        shuffle.shuffle(categories)
    return {"images": images, "annotations": annotations, "categories": categories}


def drawn(path, **options):
    return [(question.image.name, question.category) for question in QuestionSource(path).draw(**options)]


def test_a_seed_draws_the_same_whatever_the_order_and_another_seed_others(tmp_path):
    path = tmp_path / "a.json"
    found = []
    for shuffle in (None, random.Random(2), random.Random(3)):
        path.write_text(json.dumps(many(shuffle)))
        found.append(drawn(path, limit=40, no_target=0.25))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 40 == len(set(found[0]))
    assert len({name for name, category in found[0] if category == "kind 5"}) <= 10  # absent from every image
    assert drawn(path, seed=1, limit=40, no_target=0.25) != found[0]


def test_as_many_as_are_asked_for_and_a_share_of_them_without_an_answer(tmp_path):
    path = tmp_path / "a.json"
    content = many()
    path.write_text(json.dumps(content))
    counts = {}
    for each in content["annotations"]:
        counts[each["image_id"], each["category_id"]] = counts.get((each["image_id"], each["category_id"]), 0) + 1
    twice = sum(count >= 2 for count in counts.values())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    present = {(names[image], f"kind {category}") for image, category in counts}
    for limit, share, most in [(7, 0.5, 7), (20, 0.0, 20), (10, 0.33, 10), (None, 0.2, None)]:
        found = drawn(path, limit=limit, no_target=share)
        absent = [pair for pair in found if pair not in present]
        assert len(absent) == (round(share * limit) if limit else round(twice * share / (1 - share)))
        assert len(found) == (most or twice + len(absent))
    assert set(drawn(path, limit=10)) <= set(drawn(path, limit=20))
    assert len(drawn(path, limit=10**6)) == twice


def coded(codes):
    """Ids of segments as the panoptic form writes them into red, green and blue."""
    return np.stack([codes % 256, codes // 256 % 256, codes // 65536], 2).astype(np.uint8)


def panoptic(root):
    """1.jpg: two dogs (ids 7 and 70000, which needs three channels), and grass; 2.jpg: a dog and a crowd of dogs."""
    codes = np.zeros((2, 9, 12), np.int64)
    codes[0, 1:4, 1:4], codes[0, 5:9, 6:12], codes[0, 0] = 7, 70_000, 300
    codes[1, :2], codes[1, 5:] = 8, 9
    segments = [
        [{"id": 7, "category_id": 1}, {"id": 70_000, "category_id": 1, "iscrowd": 0}, {"id": 300, "category_id": 3}],
        [{"id": 8, "category_id": 1}, {"id": 9, "category_id": 1, "iscrowd": 1}],
    ]
    for number, each in enumerate(codes, 1):
        save(
            root / f"panoptic_val/{number}.png",
            coded(each),
        )
    annotations = [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": infos} for n, infos in enumerate(segments, 1)
    ]
    return write(root, annotations, "panoptic_val.json", images=2)


def test_segments_of_the_panoptic_form(tmp_path):
    path, target = panoptic(tmp_path), tmp_path / "out/q.jsonl"
    assert questions([str(path), str(target), "--no-target", "0.5"]) == 0
    present, absent = sorted(asked(target), key=lambda line: not line[2])
    assert present == ("1", "all dog", 9 + 24, [[1, 1, 4, 4], [6, 5, 12, 9]], [[2.5, 2.5], [7.5, 6.5]])
    assert absent[2:] == (0, [], [])
    assert absent[:2] in (("1", "all cat"), ("2", "all cat"), ("2", "all kite"))


def test_faults_are_named_and_nothing_is_written(tmp_path, capsys):
    path, target = write(tmp_path), tmp_path / "out/q.jsonl"
    (tmp_path / "images/3.jpg").unlink()
    assert questions([str(path), str(target)]) == 1
    fault, last = capsys.readouterr().err.splitlines()
    assert fault == f"{path}: image 3, cat: {tmp_path / 'images/3.jpg'}: no such file"
    assert last == f"{path}: 1 of 2 questions cannot be read; --skip writes the others"
    assert not list(target.parent.iterdir())
    assert questions([str(path), str(target), "--skip"]) == 0
    assert len(asked(target)) == 1
    panoptic_path = panoptic(tmp_path)
    codes = np.zeros((9, 12, 3), np.uint8)
    save(tmp_path / "panoptic_val/1.png", codes)
    assert questions([str(panoptic_path), str(tmp_path / "p.jsonl")]) == 1
    assert "segment 7: covers no pixel of" in capsys.readouterr().err


def test_nothing_is_overwritten_and_mistakes_are_one_line(tmp_path, capsys):
    path, target = write(tmp_path), tmp_path / "q.jsonl"
    assert main(["questions", str(path), str(target)]) == 0
    bare = tmp_path / "bare.json"
    bare.write_text('{"images": [], "annotations": []}')
    for arguments, reason in [
        ([path, target], f"{target}: there is something already, and it is not overwritten"),
        ([path, tmp_path / "q.json"], "name a file that ends in .jsonl"),
        ([path, tmp_path / "r.jsonl", "--least", 4], f"{path}: no category occurs 4 times on an image"),
        ([path, tmp_path / "r.jsonl", "--no-target", 1], "give whole numbers from 1 on, and a share below 1"),
        ([path, tmp_path / "r.jsonl", "--limit", 0], "give whole numbers from 1 on, and a share below 1"),
        ([bare, tmp_path / "r.jsonl"], f"{bare}: not COCO json: `categories` is no list of objects"),
        ([tmp_path / "none.json", tmp_path / "r.jsonl"], "none.json: no such file"),
    ]:
        capsys.readouterr()
        assert main(["questions", *map(str, arguments)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line
    target.unlink()
    assert main(["questions", str(path), str(target)]) == 1  # the masks are there
    assert not list(tmp_path.glob(".questions-*"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["images"][0].update(neg_category_ids=3), "image 1: `neg_category_ids` is 3"),
        (
            lambda c: c["images"][0].update(not_exhaustive_category_ids=[[1]]),
            "image 1: `not_exhaustive_category_ids` is",
        ),
        (lambda c: c["annotations"][0].update(category_id=[1]), r"annotation 1: its `category_id` is \[1\]"),
        (lambda c: c["annotations"][0].update(image_id=9), "annotation 1: belongs to image 9, which the file does not"),
        (lambda c: c["annotations"][0].update(segments_info=3, file_name="a"), "annotation 1: no panoptic annotation"),
        (
            lambda c: c.update(annotations=[{"image_id": 1, "file_name": "a", "segments_info": [{"id": 10**30}]}]),
            "its `id`",
        ),
    ],
)
def test_what_is_malformed_is_named(tmp_path, change, reason):
    path = write(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason) as error:
        QuestionSource(path).draw(no_target=0.9, least=1)
    assert "\n" not in str(error.value)


def test_what_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    path, target = write(tmp_path), tmp_path / "out/q.jsonl"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_sal.datasets.questions.inner_point", stop)
    with pytest.raises(KeyboardInterrupt):
        questions([str(path), str(target)])
    assert not list(target.parent.iterdir())


@pytest.mark.parametrize(
    ("mask", "point"),
    [
        (["....", ".##.", ".##."], [1.5, 1.5]),  # all of one distance: the first
        (["#####", "#####", "#####", "#####", "#####"], [2.5, 2.5]),  # beyond the image is not in it
        (["#......", "#.#####", "#.#####", "#.#####", "#......"], [3.5, 2.5]),
        (["#"], [0.5, 0.5]),
    ],
)
def test_the_inner_point_lies_farthest_inside(mask, point):
    pixels = torch.tensor([[each == "#" for each in row] for row in mask])
    assert inner_point(pixels) == point
    column, row = (int(value) for value in point)
    assert pixels[row, column]


def test_a_box_holds_its_last_row_and_column():
    mask = torch.zeros(9, 12, dtype=torch.bool)
    mask[2:5, 3:10] = True
    assert box_of(mask) == [3, 2, 10, 5]
    assert box_of(torch.ones(1, 1, dtype=torch.bool)) == [0, 0, 1, 1]


@needs_real
def test_masks_of_photographs_are_the_union_of_their_instances(tmp_path):
    """40 photographs of COCO: every instance's own mask, drawn anew, and the union that was written and read back."""
    source, target = REAL / "COCO-salient/instances.json", tmp_path / "q.jsonl"
    assert main(["questions", str(source), str(target), "--least", "1"]) == 0
    truth = {record.key: record.read().masks[0] for record in coco_records(source, [source.parent / "images"])}
    groups = [record.read() for record in jsonl_records(target)]
    assert sorted(Path(group.paths[0]).stem for group in groups) == sorted(
        key for key, masks in truth.items() if len(masks)
    )
    for group in groups:
        masks = truth[Path(group.paths[0]).stem]
        assert torch.equal(group.masks[0], masks.any(0, keepdim=True))
        assert group.boxes[0].tolist() == [box_of(mask) for mask in masks]
        for mask, (x, y) in zip(masks, group.points[0].tolist(), strict=True):
            assert mask[int(y), int(x)]
    listed = {line.fields["images"][0]: line.fields["boxes"][0] for line in read_lines(target)}
    assert sum(map(len, listed.values())) == 106


@needs_real
def test_coloured_masks_of_photographs_through_the_panoptic_form(tmp_path):
    """Penn-Fudan: each colour becomes a segment, whose union is what is read back."""
    folder = REAL / "PennFudan-coloured"
    images, annotations, truth = [], [], {}
    for number, file in enumerate(sorted((folder / "gt").glob("*.png")), 1):
        masks = read_instances_png(file)
        codes = np.zeros(masks.shape[1:], np.int64)
        for key, mask in enumerate(masks.numpy(), 1):
            codes[mask] = 1000 * key
        save(
            tmp_path / f"segments/{file.name}",
            np.stack([codes % 256, codes // 256 % 256, codes // 65536], 2).astype(np.uint8),
        )
        images.append({"id": number, "file_name": f"{file.stem}.jpg"})
        infos = [{"id": 1000 * key, "category_id": 1, "iscrowd": 0} for key in range(1, len(masks) + 1)]
        annotations.append({"image_id": number, "file_name": file.name, "segments_info": infos})
        truth[file.stem] = masks
    source, target = tmp_path / "panoptic.json", tmp_path / "q.jsonl"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "pedestrian"}]}
    source.write_text(json.dumps(content))
    options = ["--images", str(folder / "image"), "--segments", str(tmp_path / "segments"), "--least", "1"]
    assert main(["questions", str(source), str(target), *options]) == 0
    groups = [record.read() for record in jsonl_records(target)]
    assert len(groups) == len(truth) == 12
    for group in groups:
        masks = truth[Path(group.paths[0]).stem]
        assert group.question == "all pedestrian"
        assert torch.equal(group.masks[0], masks.any(0, keepdim=True))
        assert group.boxes[0].tolist() == [box_of(mask) for mask in masks]
