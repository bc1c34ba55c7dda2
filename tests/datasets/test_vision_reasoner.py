import json
from itertools import count

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import UnreadableSample, jsonl_records, task_records
from lightning_sal.frames import Square, from_original
from lightning_sal.tasks import get_task

SIZE = (20, 40)  # H, W
OBJECT = {"bbox_2d": [84, 42, 630, 756], "point_2d": [210, 420]}
ONE = {"id": "1", "problem": "the red mug", "image": "a.png", "solution": json.dumps([OBJECT])}


def write(root, name, *records):
    """A file of records beside images/a.png, 40 x 20, and images/b.png, the same squashed to 840 x 840."""
    for letter, size in (("a", SIZE), ("b", (840, 840))):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), ord(letter), np.uint8)).save(root / f"images/{letter}.png")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text(f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


def records(where):
    return task_records(get_task("perception"), where)


@pytest.mark.parametrize(
    "name", ["train.840.json", "train.840.jsonl", "multi_object_7k_840.json", "set_840/train.json"]
)
def test_the_solution_is_brought_from_the_square_to_the_photograph(tmp_path, name):
    path = write(tmp_path, name, ONE | {"img_height": 20, "img_width": 40}, ONE | {"id": "2", "solution": "[]"})
    if path.parent != tmp_path:
        (tmp_path / "images").rename(path.parent / "images")
    one, none = (record.read() for record in records(path))
    assert (one.task, one.question, one.masks, one.reference) == ("perception", "the red mug", None, None)
    assert one.boxes[0].tolist() == [[4, 1, 30, 18]]
    assert one.points[0].tolist() == [[10, 10]]
    assert (none.boxes[0].shape, none.points[0].shape) == ((0, 4), (0, 2))
    assert check_data([str(path)]) == check_data([str(tmp_path)]) == 0


def test_whole_numbers_of_the_square_come_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 841, (200, 2, 2)), axis=1)
    corners = corners[(corners[:, 0] < corners[:, 1]).all(1)]
    objects = [{"bbox_2d": pair.reshape(-1).tolist(), "point_2d": pair[0].tolist()} for pair in corners]
    for size in ((20, 40), (3024, 4032), (1365, 777)):
        path = write(tmp_path, "a.840.json", ONE | {"solution": json.dumps(objects)})
        Image.new("L", size[::-1]).save(tmp_path / "images/a.png")
        (group,) = (record.read() for record in records(path))
        for box, point, given in zip(group.boxes[0].tolist(), group.points[0].tolist(), objects, strict=True):
            assert from_original(box, Square(840), size) == pytest.approx(given["bbox_2d"], abs=1e-3)
            assert from_original(point, Square(840), size) == pytest.approx(given["point_2d"], abs=1e-3)


def test_a_photograph_that_lies_squashed_keeps_its_numbers(tmp_path):
    path = write(tmp_path, "a.840.json", ONE | {"image": "b.png", "img_height": 20, "img_width": 40})
    (group,) = (record.read() for record in records(path))
    assert group.boxes[0].tolist() == [OBJECT["bbox_2d"]]
    assert group.images[0].shape == (840, 840, 3)


def test_the_unit_is_said_and_never_guessed(tmp_path):
    path = write(tmp_path, "train_2014.json", ONE)
    with pytest.raises(ValueError, match=r"nothing says .* name it train_2014\.840\.json or train_2014\.pixels\.json"):
        records(path)
    pixels = {"solution": [{"bbox_2d": [4, 1, 30, 18]}]}
    path = write(
        tmp_path, "b.json", ONE | {"box_unit": 840}, ONE | pixels, ONE | pixels | {"box_unit": "pixels", "id": 2}
    )
    squashed, silent, plain = records(path)
    assert squashed.read().boxes[0].tolist() == plain.read().boxes[0].tolist() == [[4, 1, 30, 18]]
    assert plain.read().points is None
    assert "give `box_unit`" in silent.problems()[0]
    (wrong,) = records(write(tmp_path, "c.pixels.json", ONE | {"box_unit": 840}))
    assert "the file is said to be otherwise" in wrong.problems()[0]
    (none,) = records(write(tmp_path, "d.json", ONE | {"box_unit": "cm"}))
    assert "'cm' is no unit" in none.problems()[0]


def test_every_fault_is_named_by_file_and_record(tmp_path, capsys):
    ids = count(2)

    def solved(*objects):
        return ONE | {"id": next(ids), "solution": json.dumps(list(objects))}

    path = write(
        tmp_path,
        "val.840.jsonl",
        ONE,
        ONE,
        solved(OBJECT | {"bbox_2d": [600, 42, 84, 756]}, OBJECT | {"bbox_2d": [900, 0, 1000, 9]}),
        solved(OBJECT | {"point_2d": [0, 0]}),
        solved(OBJECT | {"point_2d": [841, 0]}),
        solved(OBJECT | {"bbox_2d": [1, 2, 3]}),
        solved({"point_2d": [1, 2]}),
        solved(OBJECT, {"bbox_2d": [1, 2, 3, 4]}),
        '{"problem": "x", "image": "a.png", "solution": [{"bbox_2d": [NaN, 0, 1, 2], "point_2d": [1, 1]}]}',
        solved() | {"solution": "<box>(1,2),(3,4)</box>"},
        solved() | {"solution": {"bbox_2d": [1, 2, 3, 4]}},
        solved() | {"img_height": 40, "img_width": 40},
        solved() | {"problem": " "},
        solved() | {"image": "none.png"},
        solved() | {"image": "../../outside.png"},
        solved() | {"image": {"bytes": "x"}},
        "[",
        "3",
    )
    assert check_data([str(path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    told = [line.removeprefix(f"{path}:").split(": ", 1) for line in lines]
    assert [int(number) for number, _ in told] == [2, 3, 3, *range(4, 19)]
    for (_, line), reason in zip(
        told,
        [
            f"the same `id` and `problem` as {path}:1",
            "box 1, [600, 42, 84, 756]: reversed",
            "box 2, [900, 0, 1000, 9]: outside of the image, 840 x 840 pixels",
            "1 points outside of their boxes",
            "point 1, [841, 0]: outside of the image",
            "box 1, [1, 2, 3]: not 4 numbers",
            "object 1 has no `bbox_2d`",
            "object 2 has no `point_2d`",
            "not 4 numbers",
            "`solution`: not JSON",
            "`solution` is not a list of objects",
            "boxes drawn on 40 x 40 pixels, and the image has 40 x 20",
            "`problem` is not a text",
            "none.png: no such file",
            "outside.png: no such file",
            "`image` is not the name of a file",
            "not JSON",
            "not an object",
        ],
        strict=True,
    ):
        assert reason in line, line
    counted = "1 boxes outside of their image, 1 boxes reversed, 2 targets, 1 points outside of their boxes"
    assert all(part in last for part in counted.split(", ")), last
    assert "18 samples (perception)" in last
    assert "18 images, 18 faults" in last


def test_a_question_without_a_target_is_counted(tmp_path, capsys):
    path = write(tmp_path, "val.840.json", ONE, ONE | {"id": "2", "solution": "[]"})
    assert check_data([str(path)]) == 0
    assert "2 samples (perception), 2 without masks, 1 targets, 1 questions without a target" in capsys.readouterr().out


def test_records_become_lines_of_our_own(tmp_path):
    source = write(tmp_path / "data", "train.json", ONE, ONE | {"id": "2", "solution": "[]"})
    target = tmp_path / "out/find.jsonl"
    options = [str(source), str(target), "--to", "jsonl"]
    with pytest.raises(ValueError, match="nothing says whether `solution`"):
        convert(options)
    with pytest.raises(ValueError, match="'ha' is no unit"):
        convert([*options, "--boxes", "ha"])
    assert convert([*options, "--boxes", "840"]) == 0
    one, none = (json.loads(line) for line in target.read_text().splitlines())
    assert one == {
        "task": "perception",
        "images": ["../data/images/a.png"],
        "question": "the red mug",
        "boxes": [[[4, 1, 30, 18]]],
        "points": [[[10, 10]]],
    }
    assert none["boxes"] == none["points"] == [[]]
    assert check_data([str(target)]) == 0
    assert [len(record.read().boxes[0]) for record in jsonl_records(target)] == [1, 0]


@pytest.mark.parametrize(
    "value",
    ["[" * 100_000, [[1]], [{"bbox_2d": 10**400}], [{"bbox_2d": [1e300] * 4, "point_2d": ["1", None]}], 3, None],
)
def test_hostile_solutions_are_named(tmp_path, value):
    path = write(tmp_path, "a.840.jsonl", ONE | {"solution": value})
    (record,) = records(path)
    assert record.problems()
    with pytest.raises(UnreadableSample):
        record.read()
