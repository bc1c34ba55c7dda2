"""`lightning-sal score` on boxes, counts and masks of other methods."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_sal.commands.score import main as score
from lightning_sal.evaluation.results import read_images, read_summary

H, W = 20, 40
A, B = [0, 0, 10, 10], [20, 0, 40, 20]
ASKED = {"a.png": {"the left square": [A], "both squares": [A, B]}, "b.png": {"the circle": []}}


def filled(*boxes: list[int]) -> np.ndarray:
    mask = np.zeros((H, W), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 255
    return mask


def save(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path.name


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def truth(folder: Path, task: str = "perception") -> Path:
    """Three questions about two images: keys squares/1, squares/2 and squares/3."""
    lines = []
    for image, questions in ASKED.items():
        save(folder / image, np.zeros((H, W, 3), dtype=np.uint8))
        for question, boxes in questions.items():
            mask = save(folder / f"mask-{len(lines)}.png", filled(*boxes))
            line = {"task": task, "images": [image], "question": question, "boxes": [boxes]}
            lines.append(line | ({"masks": [mask]} if task == "perception" else {}))
    return write(folder / "squares.jsonl", lines)


def run(preds: Path, gt: Path, out: Path, task: str = "perception") -> dict[str, float]:
    assert score(["--preds", str(preds), "--gt", str(gt), "--task", task, "--name", "m", "--out", str(out)]) == 0
    return read_summary(out).metrics[gt.stem]


def test_boxes_and_masks_by_image_and_question_or_key(tmp_path: Path) -> None:
    gt = truth(tmp_path)
    save(tmp_path / "p" / "left.png", filled([0, 0, 10, 5]))
    save(tmp_path / "p" / "both.png", filled(A, B))
    save(tmp_path / "p" / "none.png", filled())
    preds = write(
        tmp_path / "p" / "m.jsonl",
        [
            {"image": "a.png", "question": "The left  square.", "boxes": [[0, 0, 10, 5]], "mask": "left.png"},
            {"key": "squares/2", "boxes": [B, A, [30, 0, 31, 1]], "scores": [0.2, 0.9, 0.4], "mask": "both.png"},
            {"image": str(tmp_path / "b.png"), "boxes": [], "mask": "none.png"},  # the only question of its image
        ],
    )
    values = run(preds, gt, tmp_path / "r")
    assert values["giou"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert values["ciou"] == pytest.approx((50 + 500) / (100 + 500))
    assert values["precision"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert values["recall"] == 1
    # Scores where there are some, else the share of the image, 50/800: A (.9), the speck (.4), B (.2), the half of A (.0625)
    points = [1] * 34 + [3 / 4] * 67
    assert values["ap50"] == pytest.approx(sum(points) / 101)
    assert values["no_target_accuracy"] == values["target_accuracy"] == 1
    assert values["unreadable"] == 0
    rows = {row["key"]: row for row in read_images(tmp_path / "r", "squares")}
    assert rows["squares/1"]["giou"] == "0.5"
    assert rows["squares/1"]["no_target_accuracy"] == ""


def test_what_could_not_be_read_is_wrong_everywhere(tmp_path: Path) -> None:
    gt = truth(tmp_path)
    preds = write(tmp_path / "m.jsonl", [{"key": f"squares/{n}", "boxes": None} for n in (1, 2, 3)])
    values = run(preds, gt, tmp_path / "r")
    assert values["unreadable"] == 1
    for name in ("f1", "count_accuracy", "no_target_accuracy", "target_accuracy"):
        assert values[name] == 0
    assert "giou" not in values  # a method without masks


def test_a_folder_of_masks(tmp_path: Path) -> None:
    gt = truth(tmp_path)
    for name, boxes in (("squares/1", [A]), ("squares/2", [A, B]), ("b", [A])):
        save(tmp_path / "m" / f"{name}.png", filled(*boxes))
    values = run(tmp_path / "m", gt, tmp_path / "r")
    expected = {"giou": 2 / 3, "ciou": 600 / 700, "no_target_accuracy": 0, "target_accuracy": 1}
    assert values == pytest.approx(expected)


def test_counts_alone(tmp_path: Path) -> None:
    gt = truth(tmp_path, "counting")
    lines = [{"key": "squares/1", "count": 1}, {"key": "squares/2", "count": 5}, {"key": "squares/3", "boxes": []}]
    values = run(write(tmp_path / "m.jsonl", lines), gt, tmp_path / "r", "counting")
    assert values["count_accuracy"] == pytest.approx(2 / 3)
    assert values["count_error"] == 1


def test_coco_results_by_image_and_category(tmp_path: Path, caplog) -> None:
    """A sample is an image and a category that occurs on it, as COCO json are read for detection."""
    save(tmp_path / "images" / "1.png", np.zeros((H, W, 3), dtype=np.uint8))
    save(tmp_path / "images" / "2.png", np.zeros((H, W, 3), dtype=np.uint8))
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [20, 0, 20, 20], "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 4, "bbox": [0, 0, 4, 4], "iscrowd": 0},
        {"id": 4, "image_id": 8, "category_id": 3, "bbox": [5, 5, 10, 10], "iscrowd": 0},
    ]
    images = [{"id": key, "file_name": f"{key - 6}.png", "height": H, "width": W} for key in (7, 8)]
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 3, "name": "square"}, {"id": 4, "name": "speck"}]
    gt = tmp_path / "instances.json"
    gt.write_text(json.dumps(content))
    results = [
        {"image_id": 7, "category_id": 3, "bbox": [20, 0, 20, 20], "score": 0.9},
        {"image_id": 7, "category_id": 3, "bbox": [30, 15, 2, 2], "score": 0.8},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 10, 10], "score": 0.7},
        {"image_id": 7, "category_id": 4, "bbox": [0, 0, 4, 4], "score": 0.6},
        {"image_id": 8, "category_id": 4, "bbox": [0, 0, 4, 4], "score": 0.95},  # nobody asks for it there
    ]
    preds = tmp_path / "m.json"
    preds.write_text(json.dumps(results))
    values = run(preds, gt, tmp_path / "r", "detection")
    assert values["precision_pooled"] == 3 / 4
    assert values["recall_pooled"] == 3 / 4
    assert values["f1"] == pytest.approx((4 / 5 + 1 + 0) / 3)
    assert values["ap50"] == pytest.approx((26 * 1 + 50 * 3 / 4) / 101)  # R 1/4 at P 1, then 3/4 at P 3/4
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "left out 1 of 5 results, of categories that nothing asks for on their image"
    ]
    preds.write_text(json.dumps([results[0] | {"image_id": 9}]))
    with pytest.raises(
        ValueError, match=r"m.json: result 1: 0 samples are called key '9', image '9', question 'all square'"
    ):
        run(preds, gt, tmp_path / "x", "detection")


LINE = {"key": "squares/1", "boxes": []}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE], r"m.jsonl: 2 samples without prediction \(squares/2, squares/3\); there must be one for each of "),
        ([LINE, LINE], r"m.jsonl:2: a second answer to 'squares/1', after .*m.jsonl:1: keep one"),
        (
            [{"image": "a.png", "boxes": []}],
            r"m.jsonl:1: 2 samples are called image 'a.png': give `key`, or `image` and `question`",
        ),
        ([{"key": "x", "boxes": []}], r"m.jsonl:1: 0 samples are called key 'x'"),
        ([{"key": "squares/1"}], r"m.jsonl:1: none of `boxes`, `count` and `mask` is there"),
        (
            [LINE | {"boxes": [[1, 2]]}],
            r"m.jsonl:1: `boxes` is \[\[1, 2\]\], where a list must stand, 4 numbers or null each",
        ),
        ([LINE | {"boxes": 3}], r"`boxes` is 3"),
        ([LINE | {"boxes": [A], "points": [[1, 2], [3, 4]]}], r"2 points for 1 boxes"),
        (
            [LINE | {"boxes": [A], "scores": ["2"]}],
            r"`scores` is \['2'\], where 1 numbers must stand, one a box",
        ),
        ([{"key": "squares/1", "count": -1}], r"`count` is -1, where a whole number from 0 on must stand"),
        ([{"key": "squares/1", "mask": 3}], r"`mask` is \[3\], where the name of a file must stand"),
    ],
)
def test_mistakes_are_named_by_line_and_nothing_is_written(tmp_path: Path, lines, message) -> None:
    gt = truth(tmp_path)
    preds = write(tmp_path / "m.jsonl", lines)
    with pytest.raises(ValueError, match=message):
        run(preds, gt, tmp_path / "r")
    assert not (tmp_path / "r").exists()
