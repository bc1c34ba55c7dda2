import json

import numpy as np
import pytest

from lightning_sal.datasets import UnreadableSample, jsonl_records
from lightning_sal.datasets.jsonl import write_lines

WHITE = np.full((9, 12), 255, np.uint8)
SAID = "<think>t</think><answer>a</answer>"


def lines(path, *objects):
    path.write_text("\n".join(o if isinstance(o, str) else json.dumps(o) for o in objects) + "\n", encoding="utf-8")
    return path


def test_every_kind_of_line(save, tmp_path):
    codes = np.zeros((9, 12, 3), np.uint8)
    codes[:4, :5], codes[6:, 7:] = (255, 0, 0), (0, 255, 0)
    save("photos/a.jpg")
    save("photos/b.jpg")
    save("gt/a.png", WHITE)
    save("gt/b.png", 0 * WHITE)
    save("gt/coloured.png", codes)
    box = [[0, 0, 3, 0, 3, 2, 0, 2]]
    a, b = "photos/a.jpg", "photos/b.jpg"
    path = lines(
        tmp_path / "sft.jsonl",
        {"task": "sod", "images": [a], "masks": ["gt/a.png"], "response": SAID + "é"},
        "",
        {"task": "sis", "images": [a], "annotation": "gt/coloured.png", "response": SAID},
        {"task": "sis", "images": [a], "masks": ["gt/a.png", "gt/b.png", "gt/a.png"], "response": SAID},
        {"task": "sis", "images": [a], "annotation": [box, box], "response": SAID},
        {"task": "sis", "images": [a], "masks": [], "response": SAID},
        {"task": "cosod", "images": [a, b], "masks": ["gt/a.png", "gt/b.png"], "response": SAID},
        {"task": "cosod", "images": [a, b], "response": SAID},
    )
    groups = [record.read() for record in jsonl_records(path)]
    assert [group.key for group in groups] == [f"sft/{number}" for number in (1, 3, 4, 5, 6, 7, 8)]
    assert groups[0].response == SAID + "é"
    sums = [None if group.masks is None else [m.sum((1, 2)).tolist() for m in group.masks] for group in groups]
    assert sums == [[[108]], [[15, 20]], [[108, 0, 108]], [[6, 6]], [[]], [[108], [0]], None]
    assert groups[5].paths == (str(tmp_path / a), str(tmp_path / b))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_windows(save, tmp_path, end):
    """A byte order mark, its ends of lines, empty lines, backslashes; and lines keep their numbers."""
    save("im/a.jpg")
    save("im/a.png", WHITE)
    one = {"task": "sod", "images": ["im\\a.jpg"], "masks": ["im\\a.png"], "response": SAID}
    two = {"task": "sis", "images": ["im\\a.jpg"], "annotation": "im\\a.png", "response": SAID}
    text = end.join([json.dumps(one), "", json.dumps(two), json.dumps(one) + ",", ""])
    (tmp_path / "sft.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second, comma = jsonl_records(tmp_path / "sft.jsonl")
    assert [record.read().masks[0].sum().item() for record in (first, second)] == [108, 108]
    assert second.read().paths == (str(tmp_path / "im/a.jpg"),)
    (fault,) = comma.problems()
    assert fault.startswith(f"{tmp_path / 'sft.jsonl'}:4: not JSON: Extra data")


GOOD = {"task": "sod", "images": ["a.jpg"], "masks": ["a.png"], "response": SAID}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"task": "sod"', "not JSON"),
        ("[1]", "not an object"),
        ("[" * 100_000, "nested too deeply"),
        (GOOD | {"task": ["sod"]}, r"unknown task \['sod'\]"),
        (GOOD | {"images": {"a": 1}}, "lists of paths"),
        (GOOD | {"images": [["a.jpg"]]}, "lists of paths"),
        (GOOD | {"masks": None}, "lists of paths"),
        (GOOD | {"response": [SAID]}, "response"),
        ({"task": "sis", "images": ["a.jpg"], "annotation": [[]], "response": SAID}, "instance 0: malformed"),
        (GOOD | {"task": "segmentation"}, "unknown task 'segmentation'"),
        (GOOD | {"mask": []}, "unknown fields"),
        (GOOD | {"response": ""}, "response"),
        (GOOD | {"response": None}, "response"),
        (GOOD | {"images": "a.jpg"}, "lists of paths"),
        (GOOD | {"images": []}, "at least one image"),
        (GOOD | {"images": ["a.jpg", "a.jpg"]}, "2 images for the task sod"),
        (GOOD | {"task": "cosod"}, "1 images for the task cosod"),
        (GOOD | {"masks": []}, "0 masks for 1 images"),
        (GOOD | {"annotation": "a.png"}, "annotation"),
        (GOOD | {"images": ["none.jpg"]}, r"none\.jpg: no such file"),
        (GOOD | {"masks": ["none.png"]}, r"none\.png: no such file"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(save, tmp_path, bad, reason):
    save("a.jpg")
    save("a.png", WHITE)
    path = lines(tmp_path / "sft.jsonl", GOOD, bad)
    good, broken = jsonl_records(path)
    good.read()
    with pytest.raises(UnreadableSample, match=reason) as error:
        broken.read()
    assert str(error.value).startswith(f"{path}:2: ")
    assert broken.problems() == [str(error.value)]


def test_every_missing_file_of_a_line_is_named(tmp_path):
    record = lines(
        tmp_path / "x.jsonl", {"task": "sis", "images": ["a.jpg"], "masks": ["b.png", "c.png"], "response": "r"}
    )
    text = " ".join(jsonl_records(record)[0].problems())
    assert all(name in text for name in ("a.jpg", "b.png", "c.png"))


def test_an_absent_or_empty_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        jsonl_records(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no line"):
        jsonl_records(lines(tmp_path / "empty.jsonl", ""))


def test_names_in_other_encodings_are_written_and_read_again(tmp_path):
    name = b"\xd5\xd5\xc6\xac.png".decode(errors="surrogateescape")
    line = {"task": "sod", "images": [name, "caf\u00e9.png"], "response": "-"}
    write_lines(tmp_path / "a.jsonl", [line])
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert "caf\u00e9" in text
    assert json.loads(text) == line


def test_what_a_line_says_beside_masks_reaches_the_sample(save, tmp_path):
    save("a.jpg")
    save("b.jpg")
    asked = {"question": "What do they share?", "reference": "a dog"}
    drawn = {"boxes": [[[1, 2, 3.5, 4], [0, 0, 12, 9]], []], "points": [[], [[5, 6]]]}
    path = lines(tmp_path / "rl.jsonl", {"task": "cosod", "images": ["a.jpg", "b.jpg"], **asked, **drawn})
    (group,) = (record.read() for record in jsonl_records(path))
    assert (group.question, group.reference, group.response, group.masks) == (*asked.values(), None, None)
    assert [boxes.tolist() for boxes in group.boxes] == drawn["boxes"]
    assert [tuple(boxes.shape) for boxes in group.boxes] == [(2, 4), (0, 4)]
    assert [points.tolist() for points in group.points] == drawn["points"]
    assert [tuple(points.shape) for points in group.points] == [(0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"question": ""}, "`question` is not a text"),
        ({"reference": 2}, "`reference` is not a text"),
        ({"boxes": [[1, 2, 3, 4]]}, "`boxes`: box 1, 1: not 4 numbers; box 2"),
        ({"boxes": [[[1, 2, 3]]]}, r"`boxes`: box 1, \[1, 2, 3\]: not 4 numbers"),
        ({"boxes": [[[3, 2, 1, 4]]]}, "reversed: x0, y0, x1, y1 with x0 < x1 and y0 < y1 must stand"),
        ({"boxes": [[[1, 2, 1, 4]]]}, "empty"),
        ({"boxes": [[[1, 2, 3, float("inf")]]]}, "not 4 numbers"),
        ({"boxes": [[[1, 2, 3, 10**400]]]}, "not 4 numbers"),
        ({"boxes": [[[1, 2, 30, 4]]]}, "outside of the image, 12 x 9 pixels"),
        ({"boxes": [[], []]}, "`boxes` is not a list with one list an image"),
        ({"points": [[[1, True]]]}, r"`points`: point 1, \[1, True\]: not 2 numbers"),
        ({"points": {"x": 1}}, "`points` is not a list with one list an image"),
    ],
    ids=range(12),
)
def test_a_bad_question_or_coordinate_is_named(save, tmp_path, fields, reason):
    save("a.jpg")
    (record,) = jsonl_records(lines(tmp_path / "rl.jsonl", {"task": "sod", "images": ["a.jpg"], **fields}))
    with pytest.raises(UnreadableSample, match=f"rl.jsonl:1: .*{reason}"):
        record.read()
