"""Predictions as files: each image has its own, and what is none is named by its place."""

import json

import numpy as np
import pytest

from lightning_sal.datasets.records import Photograph
from lightning_sal.datasets.segmentations import Segmentations
from lightning_sal.predictions.readers import parse_prediction, prediction_readers
from lightning_sal.tasks import SIS, SOD, get_task

FULL, EMPTY = np.full((9, 12), 255, np.uint8), np.zeros((9, 12), np.uint8)


@pytest.fixture
def answers(save, tmp_path):
    """A `predictions.jsonl`, in which every line but the one of `right` says that nothing stands out."""
    save("right.png", FULL)
    save("wrong.png", EMPTY)

    def write(*images: str, right: str | None = None, tasks: tuple[str, ...] = ()):
        lines = [
            {"images": [image], "masks": [["right.png" if image == right else "wrong.png"]]}
            | ({"task": tasks[n]} if tasks else {})
            for n, image in enumerate(images)
        ]
        (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

        def read(path: str, task: str = "sod") -> float:
            readers = prediction_readers(tmp_path, get_task(task), "", {"a": Photograph(tmp_path / path)})
            return readers["a"]((9, 12))[0].float().mean().item()

        return read

    return write


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("images", "photograph"),
    [
        (["base/images/a.jpg", "base/GT/a.png"], "base/images/a.jpg"),
        (["base/images/a.png", "base/GT/a.png"], "base/images/a.png"),
        (["/else/where/base/images/a.png", "/else/where/base/GT/a.png"], "base/images/a.png"),
        (["x/base/a.jpg", "y/a.jpg", "a.jpg"], "x/base/a.jpg"),
    ],
)
def test_of_two_lines_for_one_name_that_of_the_photograph_counts(answers, images, photograph, turned):
    read = answers(*(images[::-1] if turned else images), right=images[0])
    assert read(photograph) == 1


def test_of_two_tasks_that_which_is_scored_counts(answers):
    read = answers("a.jpg", "a.jpg", right="a.jpg", tasks=("sis", "sod"))
    assert read("a.jpg", "sod") == 1


@pytest.mark.parametrize("images", [["x/a.jpg", "x/a.jpg"], ["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.bmp"]])
def test_two_lines_that_cannot_be_told_apart_are_refused_by_their_numbers(answers, tmp_path, images):
    with pytest.raises(ValueError, match=r"predictions\.jsonl:2: a second prediction of 'a', after line 1"):
        answers(*images)("z/a.jpg")


@pytest.mark.parametrize(
    "line",
    [
        "[]", "{}", "{", '{"images": 3, "masks": []}', '{"images": ["a"], "masks": ["a.png"]}',
        '{"images": ["a"], "masks": [[3]]}', '{"images": ["a"], "masks": []}', '{"images": ["a\\u0000"], "masks": [[]]}',
        '{"images": ["a"], "masks": [["a.png"]], "overlays": {}}', "[" * 10_000, "é",
    ],
)  # fmt: skip
def test_a_line_that_is_none_is_named(tmp_path, line):
    good = json.dumps({"images": ["a"], "masks": [["a.png"]]})
    (tmp_path / "predictions.jsonl").write_bytes(f"\ufeff{good}\r\n\r\n{line}\r\n".encode())
    with pytest.raises(ValueError, match=r"predictions\.jsonl:3: not a line of PredictionWriter: ") as error:
        prediction_readers(tmp_path, SOD, "", {})
    assert "\n" not in str(error.value)


def test_a_line_of_scenes_names_no_file():
    assert parse_prediction('{"images": [], "masks": [["scene.png"]]}')["overlays"] == []


BOX = [[2, 1, 6, 1, 6, 4, 2, 4]]


@pytest.fixture
def results(save, tmp_path):
    save("a.jpg")

    def read(content, frame=(9, 12)):
        (tmp_path / "results.json").write_text(content if isinstance(content, str) else json.dumps(content))
        truth = {"a": Photograph(tmp_path / "a.jpg", Segmentations([], frame, "gt.json: image 1", 1))}
        return prediction_readers(tmp_path / "results.json", SIS, "", truth)["a"]((9, 12))

    return read


def test_results_are_drawn_in_the_frame_of_the_ground_truth(results):
    masks, scores = results([{"image_id": 1, "score": 0.5, "segmentation": [[4, 2, 12, 2, 12, 8, 4, 8]]}], (18, 24))
    assert (masks.sum().item(), masks[0, 1:4, 2:6].all().item(), scores.tolist()) == (12, True, [0.5])
    assert results([])[0].shape == (0, 9, 12)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "1: not JSON"),
        ({"a": 1}, " not COCO results: no list"),
        ([3], " result 1: not COCO results"),
        ([{"image_id": 1, "segmentation": BOX, "score": "high"}], " result 1: not COCO results"),
        ([{"image_id": 1, "segmentation": BOX, "score": float("nan")}], " result 1: not COCO results"),
        ([{"image_id": [], "segmentation": BOX, "score": 1}], r" result 1: image_id \[\] is not in the ground truth"),
        ([{"image_id": 1, "bbox": [1, 1, 2, 2], "score": 1}], " result 1: malformed segmentation: none"),
        ([{"image_id": 1, "segmentation": {"size": [10**9] * 2, "counts": [10**18]}, "score": 1}], " result 1: "),
        ([{"image_id": 1, "segmentation": {"size": [9, 12], "counts": [100]}, "score": 1}], " result 1: .* 100 pixels"),
    ],
)
def test_what_are_no_results_is_named(results, content, reason):
    with pytest.raises(ValueError, match=f"results\\.json:{reason}") as error:
        results(content)
    assert "\n" not in str(error.value)


def test_results_need_a_ground_truth_of_the_same_ids(results, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="need a COCO json as ground truth"):
        prediction_readers(tmp_path / "results.json", SIS, "", {"a": Photograph(tmp_path / "a.jpg")})
