import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import UnreadableSample, jsonl_records, task_records
from lightning_sal.datasets.boxes import Boxes
from lightning_sal.tasks import get_task

ONE = {"image": "a.png", "question": "What is it?", "answer": "a cup"}
SIZE = (20, 40)  # H, W


def write(root, name, *records):
    """A file of records beside images/a.png (40 x 20) and images/b.png."""
    for each in ("a", "b"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), ord(each), np.uint8)).save(root / f"images/{each}.png")
    path = root / name
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text(f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


def records(where):
    return task_records(get_task("vqa"), where)


@pytest.mark.parametrize("name", ["train.pixels.jsonl", "train.pixels.json"])
def test_records_of_the_usual_form(tmp_path, name):
    full = ONE | {
        "bboxs": [[4, 2, 30, 18], [0, 0, 40, 20]],
        "width": 40,
        "height": 20,
        "dataset": "gqa",
        "split": "train",
    }
    path = write(tmp_path, name, full, ONE | {"image": "b.png", "answer": 3})
    first, second = records(tmp_path)
    group = first.read()
    assert (group.task, group.key, group.question, group.reference) == ("vqa", "train.pixels/1", "What is it?", "a cup")
    assert group.boxes[0].tolist() == [[4, 2, 30, 18], [0, 0, 40, 20]]
    assert group.boxes[0].dtype == torch.float32
    assert group.paths == (str(tmp_path / "images/a.png"),)
    assert (second.read().boxes, second.read().reference) == (None, "3")
    assert [record.read().key for record in records(path)] == [group.key, "train.pixels/2"]
    assert check_data([str(path)]) == check_data([str(tmp_path)]) == 0


@pytest.mark.parametrize(
    "boxes",
    [
        {"bboxs": [[0.1, 0.2, 0.5, 0.9]]},
        {"bbox": [0.1, 0.2, 0.5, 0.9]},
        {"box": "[0.1,0.2,0.5,0.9]"},
        {"boxes": ["[0.1, 0.2, 0.5, 0.9]"]},
    ],
    ids=str,
)
def test_normalised_boxes_are_shares_of_width_and_height(tmp_path, boxes):
    write(tmp_path, "a.jsonl", ONE | boxes | {"box_unit": "normalised"})
    (record,) = records(tmp_path)
    assert record.read().boxes[0].tolist() == [pytest.approx([4, 4, 20, 18])]


def test_the_unit_is_said_and_never_guessed(tmp_path):
    path = write(tmp_path, "a.json", ONE | {"bboxs": [[1, 2, 3, 4]]})
    with pytest.raises(ValueError, match=r"a\.json: nothing says .* name it a\.pixels\.json or a\.normalised\.json"):
        records(path)
    said = ONE | {"bboxs": [[1, 2, 3, 4]], "box_unit": "pixels"}
    write(tmp_path, "a.json", said, ONE | {"bboxs": [[1, 2, 3, 4]]}, said | {"box_unit": "cm"})
    good, silent, wrong = records(path)
    good.read()
    assert "give `box_unit`" in silent.problems()[0]
    assert "`box_unit` is 'cm'" in wrong.problems()[0]
    path = write(tmp_path, "b.normalised.json", said)
    assert "the file is said to be otherwise" in records(path)[0].problems()[0]


def test_every_bad_box_is_named_by_file_and_record(tmp_path, capsys):
    """Reversed, outside, NaN, empty and in another unit, all of them at once; one that sticks out a little is counted."""
    unit = {"box_unit": "pixels"}
    path = write(
        tmp_path,
        "val.jsonl",
        ONE | unit | {"bboxs": [[0, 0, 41, 20.5]]},  # by 2.5 %: clipped
        ONE | unit | {"bboxs": [[30, 2, 4, 18], [1, 1, 1, 9]]},
        '{"image": "a.png", "question": "q", "answer": "a", "box_unit": "pixels", "bbox": [NaN, 0, 1, 2]}',
        ONE | unit | {"bboxs": [[50, 2, 60, 18], [1, 1, 9, 9], [0, 0, 43, 20]]},
        ONE | {"box_unit": "normalised", "bboxs": [[0, 0, 340, 200]]},
        ONE | {"box_unit": "normalised", "bboxs": [[0, 0, 1.2, 0.5]]},
        ONE | unit | {"bboxs": [[0.1, 0.2, 0.5, 0.9]]},
        ONE | unit | {"bboxs": []},
        ONE | unit | {"bboxs": [[1, 2, 3]]},
        ONE | unit | {"bboxs": [[1, 2, 3, 4]], "width": 80, "height": 40},
        ONE | {"question": " "},
        "{",
        ONE | {"image": "none.png"},
    )
    assert check_data([str(path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    told = [line.removeprefix(f"{path}:").split(": ", 1) for line in lines]
    assert [int(number) for number, _ in told] == [2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    for (_, line), reasons in zip(
        told,
        [
            ["box 1, [30, 2, 4, 18]: reversed", "box 2, [1, 1, 1, 9]: empty"],
            ["not 4 numbers"],
            ["box 1, [50, 2, 60, 18]: outside of the image, 40 x 20 pixels"],
            ["box 3, [0, 0, 43, 20]: outside"],
            ["said to be normalised, and no share of a width or height: is it in pixels?"],
            ["outside of the image"],
            ["said to be in pixels, and less than two of them: is it normalised?"],
            ["holds no box"],
            ["not 4 numbers"],
            ["boxes drawn on 80 x 40 pixels, and the image has 40 x 20"],
            ["`question` is not a text"],
            ["not JSON"],
            ["none.png: no such file"],
        ],
        strict=True,
    ):
        assert all(reason in line for reason in reasons), line
    assert (
        "13 samples (vqa), 1 boxes clipped to their image, 2 boxes outside of their image, 13 images, 13 faults" in last
    )


def test_a_box_that_sticks_out_a_little_is_clipped_and_counted(tmp_path, caplog):
    rows = [[-0.01, 0, 1.03, 1], [0, 0, 1, 1]]
    write(tmp_path, "a.normalised.json", ONE | {"bboxs": rows})
    (record,) = records(tmp_path)
    assert record.read().boxes[0].tolist() == [[0, 0, 40, 20]] * 2
    assert "1 boxes stick out of their image by up to 5% and are clipped" in caplog.text
    assert Boxes(([0, 0, 41, 20],)).clipped(SIZE) == 1
    assert Boxes(([0, 0, 40, 20],)).clipped(SIZE) == 0


def test_our_own_jsonl_has_the_same_checks(tmp_path):
    line = {"task": "vqa", "images": ["images/a.png"], "question": "q", "reference": "a"}
    bad = [[[30, 2, 4, 18], [1, 1, 1, 9]]], [[[50, 2, 60, 18]]], [[[0, 0, 41, 20]]]
    path = write(tmp_path, "rl.jsonl", *(line | {"boxes": boxes} for boxes in bad))
    reversed_, outside, out = jsonl_records(path)
    assert "reversed" in reversed_.problems()[0]
    assert "box 2, [1, 1, 1, 9]: empty" in reversed_.problems()[0]
    with pytest.raises(UnreadableSample, match=r"rl\.jsonl:2: box 1, .*: outside of the image, 40 x 20 pixels"):
        outside.read()
    assert out.read().boxes[0].tolist() == [[0, 0, 40, 20]]


def test_records_become_lines_of_our_own(tmp_path, capsys):
    source = write(
        tmp_path / "data",
        "train.jsonl",
        ONE | {"bbox": [0.1, 0.2, 0.5, 1.04]},
        ONE | {"bbox": [0.1, 0.2, 0.1, 0.9]},
        ONE | {"image": "b.png"},
    )
    target = tmp_path / "out/vqa.jsonl"
    options = [
        str(source),
        str(target),
        "--to",
        "jsonl",
        "--boxes",
        "normalised",
        "--images",
        str(tmp_path / "data/images"),
    ]
    assert convert(options) == 1
    assert f"{source}:2: `bbox`: box 1, [0.1, 0.2, 0.1, 0.9]: empty" in capsys.readouterr().err
    assert not target.exists()
    assert convert([*options, "--skip"]) == 0
    assert "no masks" not in capsys.readouterr().out
    first, second = (record.read() for record in jsonl_records(target))
    assert first.boxes[0].tolist() == [pytest.approx([4, 4, 20, 20])]
    assert (first.question, first.reference, second.boxes) == ("What is it?", "a cup", None)
    assert second.images[0].unique().tolist() == [ord("b")]
    assert check_data([str(target)]) == 0


def test_images_of_several_sets_are_found_below_the_file(tmp_path):
    write(tmp_path / "cot/gqa", "x.txt")
    write(tmp_path, "train.pixels.jsonl", ONE | {"image": "gqa/images/a.png", "bboxs": [[1, 2, 3, 4]]})
    (record,) = records(tmp_path)
    assert record.read().paths == (str(tmp_path / "cot/gqa/images/a.png"),)


def test_hostile_boxes_are_named_and_take_no_time(tmp_path):
    """Deep nesting, texts in texts, huge numbers, other types."""
    unit = {"box_unit": "pixels"}
    values = [
        "[" * 100_000,
        json.dumps("[1,2,3,4]"),
        [[10**400, 0, 1, 1]],
        {"x": 1},
        None,
        True,
        [[None] * 4],
        [[["1"]]],
    ]
    write(tmp_path, "a.jsonl", *(ONE | unit | {"bboxs": value} for value in values))
    found = records(tmp_path)
    assert len(found) == len(values)
    for record in found:
        assert record.problems(), record
