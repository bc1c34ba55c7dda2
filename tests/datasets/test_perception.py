import json

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.check_data import main as check_data
from lightning_sal.commands.convert import main as convert
from lightning_sal.datasets import UnreadableSample, jsonl_records
from lightning_sal.datasets.conversations import from_conversation, to_conversation
from lightning_sal.datasets.unions import Union
from lightning_sal.tasks import get_task

SIZE = (9, 12)  # H, W
RINGS = [[[1, 1, 4, 1, 4, 4, 1, 4]], [[6, 2, 10, 2, 10, 6, 6, 6]]]
DRAWN = np.zeros(SIZE, bool)
DRAWN[1:4, 1:4] = DRAWN[2:6, 6:10] = True
LINE = {
    "task": "perception",
    "images": ["a.jpg"],
    "question": "both squares",
    "boxes": [[[1, 1, 4, 4], [6, 2, 10, 6]]],
    "points": [[[2, 2], [8, 4]]],
}
SAID = (
    '<think>Two <look>squares</look>.</think><answer>[{"bbox_2d": [70, 93, 280, 373], "point_2d": [140, 187]}]</answer>'
)


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_mask_of_a_line_is_one_file_or_the_union_of_segmentations_or_not_there(save, tmp_path):
    save("a.jpg")
    save("a.png", DRAWN.astype(np.uint8) * 255)
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[1:4, 1:4, 0] = colours[2:6, 6:10, 1] = 255
    save("colours.png", colours)
    masks = [{"masks": ["a.png"]}, {"annotation": RINGS}, {"annotation": "colours.png"}, {"annotation": []}, {}]
    *drawn, none, unknown = jsonl_records(write(tmp_path / "rl.jsonl", *(LINE | mask for mask in masks)))
    for record in drawn:
        assert record.read().masks[0].tolist() == [DRAWN.tolist()]
    assert none.read().masks[0].shape == (1, *SIZE)
    assert not none.read().masks[0].any()
    assert unknown.read().masks is None
    assert [len(record.read().boxes[0]) for record in (*drawn, unknown)] == [2] * 4
    assert Union(drawn[1].photographs[0].annotation)(None, 1).shape == (1, 0, 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"annotation": [[[1, 2]]]}, "no polygon of 3 points or more"),
        ({"annotation": RINGS, "masks": ["a.png"]}, "takes the place of `masks`"),
        ({"masks": ["a.png", "b.png"]}, "2 masks for 1 images"),
        ({"points": [[[2, 2], [80, 4]]]}, r"point 2, \[80, 4\]: outside of the image"),
        ({"points": [[[2, float("nan")]]]}, "not 2 numbers"),
        ({"boxes": [[[4, 1, 1, 4]]]}, "reversed"),
        ({"task": "vqa", "annotation": RINGS}, "the task vqa has none such"),
    ],
    ids=range(7),
)
def test_a_bad_line_is_named(save, tmp_path, fields, reason):
    save("a.jpg")
    (record,) = jsonl_records(write(tmp_path / "rl.jsonl", LINE | fields))
    with pytest.raises(UnreadableSample, match=rf"rl\.jsonl:1: .*{reason}"):
        record.read()


def test_check_data_counts_what_is_asked_for(save, tmp_path, capsys):
    save("a.jpg")
    lines = [
        LINE | {"annotation": RINGS},
        LINE | {"boxes": [[]], "points": [[]], "annotation": []},
        LINE | {"points": [[[8, 4], [2, 2]]]},
        LINE | {"boxes": [[[1, 1, 12.2, 4]]]},
        {key: value for key, value in LINE.items() if key != "boxes"},
        {key: value for key, value in LINE.items() if key != "question"},
    ]
    path = write(tmp_path / "rl.jsonl", *lines)
    assert check_data([str(path)]) == 1
    *faults, last = capsys.readouterr().out.splitlines()
    assert faults[0] == f"{path}:3: 2 points outside of their boxes"
    assert [fault.partition(": ")[0] for fault in faults] == [f"{path}:{number}" for number in (3, 5, 6)]
    assert "needs masks" in faults[1]
    assert "needs a question" in faults[2]
    for count in (
        "6 samples (perception), 3 without masks",
        "9 targets",
        "1 questions without a target",
        "2 points outside of their boxes",
        "1 boxes clipped to their image",
    ):
        assert count in last


@pytest.mark.parametrize("objects", [2, 0])
def test_boxes_become_a_conversation_and_come_back(objects):
    line = LINE | {name: [LINE[name][0][:objects]] for name in ("boxes", "points")}
    item = to_conversation(line)
    asked, answered = (turn["value"] for turn in item["conversations"])
    task = get_task("perception").without_reasoning()
    assert asked == f"<image>both squares\n{task.instruction}"
    read = task.parse(answered)
    assert read.reason is None
    assert [list(box) for box in read.boxes] == line["boxes"][0]
    assert from_conversation(json.loads(json.dumps(item))) == (line, ())
    said = line | {"response": SAID}
    assert from_conversation(to_conversation(said)) == (said, ())
    said = line | {"response": answered}  # which the line itself states, and so keeps
    assert from_conversation(to_conversation(said)) == (said, ())


def test_a_line_without_a_point_for_each_box_is_no_answer():
    for fields in ({"points": [[[2, 2]]]}, {"points": [[]]}):
        with pytest.raises(ValueError, match="no response: a conversation needs an answer"):
            to_conversation(LINE | fields)


def test_conversations_from_elsewhere_say_in_what_their_boxes_are(tmp_path):
    task = get_task("perception")
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "a.jpg")
    asked = f"<image>both squares\n{task.instruction}"
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": SAID}]
    source = tmp_path / "chat.jsonl"
    write(source, {"conversations": turns, "images": ["a.jpg"]})
    target = tmp_path / "sft.jsonl"
    options = [str(source), str(target), "--to", "jsonl", "--task", "perception"]
    assert convert(options) == 1
    assert convert([*options, "--boxes", "840"]) == 0
    line = json.loads(target.read_text())
    answer = task.parse(line["response"])
    assert answer.reason is None
    assert answer.boxes[0] == pytest.approx((1, 93 * 9 / 840, 4, 373 * 9 / 840))
    assert answer.points[0] == pytest.approx((2, 187 * 9 / 840))
    target.unlink()
    assert convert([*options, "--boxes", "pixels"]) == 0
    assert json.loads(target.read_text())["response"] == SAID
