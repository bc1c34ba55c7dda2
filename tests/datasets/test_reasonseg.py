import json

import numpy as np
import pytest

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import jsonl_records, task_records
from lightning_sal.datasets.reasonseg import draw
from lightning_sal.tasks import get_task

# 12 x 9 pixels; "#" the target, "i" what is to be ignored
DRAWN = """
............
.#########..
.#iiiiiii#..
.#i#####i#..
.#i#####i#..
.#i#####i#..
.#iiiiiii#..
.#########..
............
"""


def rectangle(label, x0, y0, x1, y1):
    return {"label": label, "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], "shape_type": "polygon"}


SHAPES = [
    rectangle("target", 3, 3, 7, 5),
    rectangle("Ignore", 2, 2, 8, 6),
    rectangle("target", 1, 1, 9, 7),
    rectangle("flag", 0, 0, 11, 8),
]
GOOD = {"text": ["the thing to drink from", "a mug"], "is_sentence": True, "shapes": SHAPES}


def write(save, name, content, encoding="utf-8"):
    path = save(f"{name}.jpg").with_suffix(".json")
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding=encoding)
    return path


def records(where, split=None):
    return task_records(get_task("perception"), where, split)


def test_a_sample_a_sentence_with_the_mask_as_it_was_drawn(save, tmp_path, caplog):
    write(save, "ReasonSeg/val/mug", GOOD)
    write(save, "ReasonSeg/test/mug", GOOD | {"text": ["café"], "shapes": []}, encoding="cp1252")
    first, second = records(tmp_path / "ReasonSeg", "val")
    group = first.read()
    assert (group.question, second.question) == ("the thing to drink from", "a mug")
    assert (first.key, second.key, group.task, group.boxes) == ("mug.1", "mug.2", "perception", None)
    wanted = [[pixel == "#" for pixel in row] for row in DRAWN.split()]
    assert group.masks[0][0].tolist() == wanted
    assert "1 photographs have regions to be ignored, which count as background here" in caplog.text
    (none,) = records(tmp_path / "ReasonSeg", "test")
    assert none.question == "café"
    assert not none.read().masks[0].any()
    assert none.read().masks[0].shape == (1, 9, 12)


def test_outlines_are_those_of_the_release(save):
    cv2 = pytest.importorskip("cv2", reason="OpenCV draws the masks of the reference")
    rng = np.random.default_rng(1)
    for _ in range(300):
        height, width = rng.integers(5, 90, 2)
        corners = rng.integers(1, 15)
        ring = np.stack([rng.integers(0, width, corners), rng.integers(0, height, corners)], 1)
        theirs = np.zeros((height, width), np.uint8)
        cv2.polylines(theirs, ring[None].astype(np.int32), True, 1, 1)
        cv2.fillPoly(theirs, ring[None].astype(np.int32), 1)
        np.testing.assert_array_equal(draw(ring, (int(height), int(width))), theirs.astype(bool))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "no known layout"),
        (GOOD | {"text": []}, "`text` is no list of sentences"),
        (GOOD | {"text": ["a", " "]}, "`text` is no list of sentences"),
        (GOOD | {"text": 3}, "`text` is no list of sentences"),
        (GOOD | {"is_sentence": "yes"}, "`is_sentence` is 'yes'"),
        (GOOD | {"shapes": {}}, "`shapes` is no list of objects"),
        (GOOD | {"shapes": [3]}, "`shapes` is no list of objects"),
        (GOOD | {"shapes": [{"points": [[1, 2]]}]}, "shape 1: its `label` is None"),
        (GOOD | {"shapes": [*SHAPES, {"label": "target", "points": []}]}, "shape 5: its `points` are no pairs"),
        (GOOD | {"shapes": [{"label": "target", "points": [[1, "2"]]}]}, "shape 1: its `points` are no pairs"),
        (GOOD | {"shapes": [{"label": "target", "points": [[1, 1e9]]}]}, "numbers up to 1e"),
        (GOOD | {"shapes": [{"label": "target", "points": [[float("nan"), 1]]}]}, "its `points` are no pairs"),
        (GOOD | {"shapes": [{"label": "target", "points": [[0, 0], [10**6, 0]] * 100}]}, "an outline of more than"),
        (GOOD | {"shapes": SHAPES * 300}, "1200 shapes, more than 1000"),
        (GOOD | {"shapes": [rectangle("target", 100, 100, 200, 200)]}, "the target covers no pixel of the 12 x 9"),
    ],
    ids=range(16),
)
def test_every_fault_is_one_line_with_the_file(save, tmp_path, capsys, content, reason):
    path = write(save, "val/mug", content)
    if content != "[]":
        write(save, "val/a", GOOD)  # by which the folder is told
    assert check_data([str(tmp_path)]) == 1
    told = capsys.readouterr()
    lines = [line for line in (told.out + told.err).splitlines() if reason in line]
    assert lines
    assert all(str(path if content != "[]" else tmp_path) in line for line in lines)


def test_a_json_without_a_photograph_is_a_fault_and_a_photograph_without_a_json_is_left_out(save, tmp_path, capsys):
    write(save, "val/a", GOOD)
    write(save, "val/b", GOOD)
    (tmp_path / "val/b.jpg").rename(tmp_path / "val/c.jpg")
    assert check_data([str(tmp_path)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{tmp_path}/val/c.jpg: no c.json beside it, left out",
        f"{tmp_path}/val/b.json: one photograph of its name must stand beside it, and there is none",
    ]
    assert "3 samples (perception), 3 images, 2 faults" in last


def test_sentences_become_lines_of_our_own_with_the_same_masks(save, tmp_path):
    write(save, "val/a", GOOD)
    target = tmp_path / "out/val.jsonl"
    assert convert([str(tmp_path / "val"), str(target), "--to", "jsonl"]) == 0
    line, _ = (json.loads(line) for line in target.read_text().splitlines())
    assert (line["images"], line["question"]) == (["../val/a.jpg"], GOOD["text"][0])
    (was, _), (now, _) = records(tmp_path / "val"), jsonl_records(target)
    assert was.read().masks[0].tolist() == now.read().masks[0].tolist()
    assert check_data([str(target)]) == 0
