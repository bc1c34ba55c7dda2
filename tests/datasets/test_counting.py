"""Tables of counts in every form, by hand: where the images are, what is asked, and each fault by its row."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import jsonl_records, task_records
from lightning_sal.tasks import get_task

LISTS = ["a.csv", "a.json", "a.jsonl"]
TABLES = ["a.parquet", "a.arrow"]


def photograph(shade: int = 0) -> bytes:
    """A PNG of 40 x 20 pixels of one shade, by which it can be told."""
    file = io.BytesIO()
    Image.fromarray(np.full((20, 40, 3), shade, np.uint8)).save(file, "png")
    return file.getvalue()


def put(root, *names):
    """Photographs, each of the shade of its place."""
    for shade, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(shade))


def write(root, name, *rows):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        names = list(dict.fromkeys(key for row in rows for key in row))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            told = ({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
            writer.writerows(told)
    elif path.suffix in (".parquet", ".arrow"):
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.Table.from_pylist(list(rows))
        if path.suffix == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, path, row_group_size=2)
        else:
            with pyarrow.ipc.new_stream(str(path), table.schema) as stream:
                stream.write_table(table)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text(f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


def records(where):
    return task_records(get_task("counting"), where)


def shades(found):
    return [int(record.read().images[0][0, 0, 0]) for record in found]


POINTS = {"x": [1.5, 40.0], "y": [2.25, 20.0]}
PIXMO = (
    {"image_url": "https://a.b/x/dogs.png?w=9", "image_sha256": "0" * 64, "count": 2, "points": POINTS, "label": "dogs"},
    {"image_url": "https://a.b/red%20cup.png", "image_sha256": "1" * 64, "count": 3, "points": {"x": [], "y": []},
     "label": "red cup"},
)  # fmt: skip


@pytest.mark.parametrize("name", [*LISTS, *TABLES])
def test_pixmo_count_in_every_form(tmp_path, name):
    path = write(tmp_path, name, *PIXMO)
    put(tmp_path, "images/dogs.png", "images/red cup.png")
    first, second = (record.read() for record in records(tmp_path))
    assert (first.key, first.task, first.question, first.reference) == ("a/0", "counting", "all dogs", "2")
    assert first.points[0].tolist() == [[1.5, 2.25], [40, 20]]
    assert (second.question, second.reference, second.points) == ("all red cup", "3", None)
    assert shades(records(path)) == [0, 1]
    assert check_data([str(path)]) == check_data([str(tmp_path)]) == 0


def test_points_may_be_a_list_of_pairs_and_counts_may_be_floats(tmp_path):
    put(tmp_path, "0.png", "1.png", "2.png")
    row = {"image": "0.png", "count": 2, "label": "cup", "points": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}
    write(
        tmp_path,
        "a.csv",
        row,
        {"image": "1.png", "count": "3.0", "label": "cup"},
        row | {"image": "2.png", "points": ""},
    )
    first, second, third = (record.read() for record in records(tmp_path))
    assert first.points[0].tolist() == [[1, 2], [3, 4]]
    assert (second.reference, second.points, third.points) == ("3", None, None)


@pytest.mark.parametrize("folder", ["", "images/", "photographs/2024/"])
@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("dogs.png", "red cup.png"), [0, 1]),
        (("1" * 64 + ".png", "0" * 64 + ".png"), [1, 0]),
        (("0" * 64, "1" * 64), [0, 1]),
        (("1.png", "0.png"), [1, 0]),
        (("000001.png", "000000.png"), [1, 0]),
    ],
)
def test_images_are_found_by_address_digest_or_row(tmp_path, folder, names, shown):
    path = write(tmp_path, "a.json", *PIXMO)
    put(tmp_path, *(f"{folder}{name}" for name in names))
    assert shades(records(path)) == shown


def test_an_image_is_never_guessed(tmp_path, capsys):
    """Two addresses that end alike tell nothing; numbers from 1 are refused; a missing image says what to do."""
    rows = [row | {"image_url": f"https://a.b/{n}/image.png"} for n, row in enumerate(PIXMO)]
    path = write(tmp_path, "a.json", *rows)
    put(tmp_path, "image.png")
    assert check_data([str(path)]) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    said = "its image is not there: put it beside the table, or into a folder there, named"
    assert first == f"{path}: row 1: {said} {'0' * 64} or 0"
    assert second == f"{path}: row 2: {said} {'1' * 64} or 1"
    put(tmp_path, "images/1.png", "images/2.png")
    with pytest.raises(ValueError, match=r"a\.json: its images in .*images are numbered from 1, and rows are"):
        records(path)
    put(tmp_path, "images/0.png")
    assert shades(records(path)) == [0, 0]


def test_a_missing_image_of_some_is_not_another_of_its_number(tmp_path):
    """Where names are what images are found by, the number of a row means nothing."""
    path = write(
        tmp_path, "a.json", *({"image": f"{name}.png", "count": 1, "label": "cup"} for name in ("7", "8", "0"))
    )
    put(tmp_path, "0.png", "7.png")
    first, missing, last = records(path)
    assert shades([first, last]) == [1, 0]
    assert "named 8.png or 1" in missing.problems()[0]


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ({"question": "How many headsets are there in the image?"}, "all headsets in the image"),
        ({"question": "how many people are sitting at the table"}, "all people sitting at the table"),
        ({"question": "How many chairs?"}, "all chairs"),
        ({"question": "Count the chairs."}, "Count the chairs."),
        ({"question": "How many chairs?", "label": "seats"}, "all seats"),
        ({"text": "How many chairs are there?", "count": 2}, "all chairs"),
        ({"question": "How many chairs?", "text": "Two chairs on a lawn"}, "all chairs"),
    ],
)
def test_what_is_asked(tmp_path, asked, question):
    put(tmp_path, "0.png")
    write(tmp_path, "a.jsonl", ({"number": 2} if "count" not in asked else {}) | {"image": "0.png"} | asked)
    (record,) = records(tmp_path)
    assert (record.question, record.reference) == (question, "2")


def test_a_caption_that_states_the_number_is_no_question(tmp_path):
    path = write(tmp_path, "a.json", {"image_url": "https://a.b/c.png", "text": "Two chairs on a lawn", "number": 2})
    with pytest.raises(ValueError, match=r"a\.json: its `text` is a caption that states the number: add a"):
        records(path)


@pytest.mark.parametrize("name", LISTS)
def test_every_fault_is_named_by_file_and_row(tmp_path, capsys, name):
    put(tmp_path, *(f"{n}.png" for n in range(11)))
    rows = [{"image": f"{n}.png", "count": 1, "label": "cup", "points": {"x": [1], "y": [2]}} for n in range(11)]
    changes = [
        {},
        {"count": -1},
        {"count": 1.5},
        {"count": "two"},
        {"count": 2},
        {"points": {"x": [41], "y": [2]}},
        {"points": {"x": [1], "y": [-0.5]}},
        {"points": {"x": [1], "y": []}},
        {"points": {"x": ["one"], "y": [2]}},
        {"label": " "},
        {"points": [3]},
    ]
    path = write(tmp_path, name, *(row | change for row, change in zip(rows, changes, strict=True)))
    assert check_data([str(path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    told = [line.removeprefix(f"{path}: row ").split(": ", 1) for line in lines]
    assert [int(number) for number, _ in told] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    for (_, line), reason in zip(
        told,
        [
            "where a whole number from 0 on must stand",
            "`count` is",
            "where a whole number from 0 on must stand",
            "`count` is 2, and `points` are 1",
            "point 1, [41, 2]: outside of the image",
            "point 1, [1, -0.5]: outside of the image",
            "where as many x as y must stand",
            "point 1, ['one', 2]: not 2 numbers",
            "neither `label` nor `question` says what is counted",
            "where a list of x and y must stand",
        ],
        strict=True,
    ):
        assert reason in line, line
    assert "11 samples (counting)" in last
    assert last.endswith("11 images, 10 faults")


def test_malformed_rows_of_lists(tmp_path):
    put(tmp_path, "0.png", "1.png", "2.png")
    good = {"image": "0.png", "count": 1, "label": "cup"}
    path = write(tmp_path, "a.jsonl", good, "{", "[1]")
    assert [record.problems()[0].split(": ", 2)[2].split(":")[0] for record in records(path)[1:]] == [
        "not JSON",
        "not an object",
    ]
    path.unlink()
    path = tmp_path / "a.csv"
    path.write_text("image,count,label\n0.png,1,cup,more\n1.png\n")
    assert [record.problems() for record in records(path)] == [
        [f"{path}: row 1: 1 values more than there are columns"],
        [f"{path}: row 2: `count` is None, where a whole number from 0 on must stand"],
    ]
    path.write_text('image,count,label\n0.png,1,"cup\n')
    with pytest.raises(ValueError, match=r"a\.csv:2: not CSV: "):
        records(path)


@pytest.mark.parametrize("name", TABLES)
def test_countbench_with_its_images_inside(tmp_path, name):
    rows = [
        {"image": {"bytes": photograph(n), "path": None} if n != 1 else None, "number": n + 2, "text": f"{n} cups",
         "question": "How many cups are there?"}
        for n in range(3)
    ]  # fmt: skip
    path = write(tmp_path, f"data/{name}", *rows)
    first, missing, last = records(path)
    assert shades([first, last]) == [0, 2]
    assert "`image` holds no bytes of an image" in missing.problems()[0]
    target = tmp_path / "out/count.jsonl"
    assert convert([str(path), str(target), "--to", "jsonl"]) == 1
    assert not list(target.parent.iterdir())
    assert convert([str(path), str(target), "--to", "jsonl", "--skip"]) == 0
    groups = [record.read() for record in jsonl_records(target)]
    assert [(group.task, group.question, group.reference) for group in groups] == [
        ("counting", "all cups", n) for n in "24"
    ]
    assert shades(jsonl_records(target)) == [0, 2]
    assert sorted(each.name for each in target.parent.iterdir()) == ["count.jsonl", "count_images"]
    assert check_data([str(target)]) == 0


def test_rows_become_lines_of_our_own(tmp_path):
    path = write(tmp_path / "pixmo", "a.json", *PIXMO)
    put(tmp_path / "pixmo", "images/dogs.png", "images/red cup.png")
    target = tmp_path / "out.jsonl"
    assert convert([str(path), str(target), "--to", "jsonl", "--images", str(tmp_path / "pixmo/images")]) == 0
    first, second = (record.read() for record in jsonl_records(target))
    assert (first.question, first.reference, first.points[0].tolist()) == ("all dogs", "2", [[1.5, 2.25], [40, 20]])
    assert second.points is None
    assert shades(jsonl_records(target)) == [0, 1]


def test_hostile_rows_are_named_and_take_no_time(tmp_path):
    """Deep nesting, huge numbers, other types in every column."""
    put(tmp_path, "a.png")
    good = {"image": "a.png", "count": 1, "label": "cup", "question": "how many " + "?" * 10**5, "image_sha256": "0"}
    values = [
        "[" * 10**5,
        10**400,
        {"x": 1},
        {"x": {}, "y": {}},
        True,
        [[["1"]]],
        {"x": [10**400], "y": [1]},
        ["how many"],
    ]
    rows = [
        good | {name: value} for value in values for name in ("count", "points", "image", "image_sha256", "image_url")
    ]
    rows += [good | {"label": value} for value in values]
    path = write(tmp_path, "a.json", *(rows := [good, *rows]))
    found = records(path)
    assert len(found) == len(rows)
    faulty = [row for row, record in zip(rows, found, strict=True) if record.problems()]
    assert all(row in faulty for row in rows if row["count"] is not True and row["count"] != 1)
    for record in found:
        assert all("\n" not in line and len(line) < 1000 for line in record.problems())
