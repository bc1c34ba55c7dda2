"""The reward of Dr. Seg and VisionReasoner: against the values of their public code, and by hand arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_sal import rewards
from lightning_sal.rewards import Response, perception_terms
from lightning_sal.rewards.perception import binary_hits, non_repeat
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import PERCEPTION, SOD
from lightning_sal.tasks.boxes import first_answer, read_list

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "dr_seg" / "dr_seg_rewards.jsonl"
TEXTS_AS_NUMBERS = {"dr078", "dr079", "dr084", "dr209", "dr073"}  # numbers in VisionReasoner are not texts or null


def records():
    if not SHARED.is_file():
        return []
    return [json.loads(line) for line in SHARED.read_text().splitlines()]


def truth_of(record):
    items = json.loads(record["solution"])
    return [[item[key] for item in items] for key in ("bbox_2d", "point_2d")]


def raises(record):
    try:
        perception_terms(record["response"], *truth_of(record))
    except (ValueError, TypeError):  # what is no JSON, or no list of boxes
        return True
    return False


def said(*objects, reasoning="<look>there</look>"):
    items = [{"bbox_2d": list(box), "point_2d": list(point)} for box, point in objects]
    return f"<think>{reasoning}</think><answer>{json.dumps(items)}</answer>"


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared is not here")
def test_the_public_code_gives_the_same_values():
    for record in records():
        wanted = record.get("right") or record
        if wanted.get("raise"):
            assert raises(record), record["id"]
            continue
        boxes, points = truth_of(record)
        found = perception_terms(record["response"], boxes, points)
        named = dict(zip(("box", "count", "point"), wanted["x"], strict=True)) | wanted["format"]
        named |= {"non_repeat": wanted["non_repeat"]}
        named.pop("total")
        assert found == pytest.approx(named, abs=1e-9), record["id"]


@pytest.mark.skipif(not SHARED.is_file(), reason="../shared is not here")
def test_vision_reasoners_public_code_gives_the_same_values():
    for record in records():
        base = record["base_vision_reasoner"]
        assert non_repeat(record["response"], "vision_reasoner") == base["non_repeat"], record["id"]
        if record["kind"] == "bad_ground_truth" or record["id"] in TEXTS_AS_NUMBERS:
            continue
        (boxes, points), place = truth_of(record), first_answer(record["response"])
        listed = read_list(record["response"][slice(*place)] if place else "")
        boxes, points = np.array(boxes, float).reshape(-1, 4), np.array(points, float).reshape(-1, 2)
        assert sum(binary_hits(listed, boxes, points)) == pytest.approx(base["accuracy"], abs=1e-9), record["id"]


def test_a_whole_answer_by_hand():
    """IoU with both edges inside: 21 x 21 of 21 x 31; a point at a distance of 115 is half way from 30 to 200."""
    response = said(((0, 0, 20, 20), (5, 5)), ((500, 500, 520, 530), (510, 510)))
    found = perception_terms(response, [[500, 500, 520, 530], [0, 0, 20, 30]], [[510, 510], [5, 120]])
    assert found["box"] == pytest.approx((1 + 21 / 31) / 2)
    assert found["point"] == pytest.approx((1 + 0.5) / 2)
    assert [found[key] for key in ("tags", "json", "look", "non_repeat", "count")] == [1, 2, 1, 1, 1]
    assert perception_terms(response, [[0, 0, 20, 20]], [[5, 5]])["count"] == 0.5


def test_hits_by_hand():
    items = [{"bbox_2d": [0, 0, 20, 20], "point_2d": [30, 5]}, {"bbox_2d": [0, 0, 1, 1], "point_2d": [0, 0]}]
    listed = read_list(json.dumps(items))
    boxes, points = np.array([[0.0, 0, 20, 30]]), np.array([[30.0, 5]])
    assert binary_hits(listed, boxes, points) == (0.5, 0.5, 0)  # the point lies outside of its own box


def test_what_is_unreadable_is_not_the_answer_that_nothing_fits():
    assert perception_terms(said(), [], [])["count"] == 1
    assert perception_terms("<think>a</think><answer>nothing</answer>", [], [])["count"] == 0


def test_a_truth_that_is_none_is_refused():
    for boxes, points in (([[1, 2, 3]], [[1, 2]]), ([[1, 2, 3, 4]], []), ([[1, 2, 3, float("nan")]], [[1, 2]])):
        with pytest.raises(ValueError, match=r"the truth must be N boxes of 4 numbers and N points of 2"):
            perception_terms(said(), boxes, points)


def test_more_objects_than_are_compared():
    many = [((n, n, n + 9, n + 9), (n + 4, n + 4)) for n in range(200)]
    boxes, points = ([list(pair[at]) for pair in many] for at in (0, 1))
    found = perception_terms(said(*many), boxes, points)
    assert (found["box"], found["count"], found["point"]) == (1, 1, 1)


def answered(text, *, boxes=None, points=None, size=(420, 1680), **fields):
    places = {
        name: (torch.tensor(rows).float().view(-1, width),)
        for name, rows, width in (("boxes", boxes, 4), ("points", points, 2))
        if rows is not None
    }
    image = torch.zeros(*size, 3, dtype=torch.uint8)
    group = ImageGroup("sample-1", "perception", (image,), question="cup", **places, **fields)
    return Response(group, text, PERCEPTION.parse(text))


def values(term, *responses):
    """The value of each response, None where it is unknown."""
    scores = term(responses)
    assert len(scores.reasons) == len(responses)
    known = [True] * len(responses) if scores.known is None else scores.known.tolist()
    return [value if has else None for value, has in zip(scores.values.tolist(), known, strict=True)]


def test_terms_compare_in_a_square_of_840_whatever_the_image():
    """In an image of 1680 x 420 pixels, 230 pixels to the right are 115 of the square, and 57.5 downwards are 115 too."""
    box = ((0, 0, 40, 10), (10, 5))
    right = answered(said(((0, 0, 40, 10), (240, 5))), boxes=[box[0]], points=[box[1]])
    down = answered(said(((0, 0, 40, 10), (10, 62.5))), boxes=[box[0]], points=[box[1]])
    assert values(rewards.PointDistance(), right, down) == pytest.approx([0.5, 0.5])
    assert values(rewards.BoxIoU(), right) == [1]
    assert values(rewards.PointHit(), right, answered(said(box), boxes=[box[0]], points=[box[1]])) == [0, 1]


def test_a_right_empty_answer_is_worth_what_is_said():
    empty, wrong = answered(said(), boxes=[], points=[]), answered(said(((1, 2, 3, 4), (2, 3))), boxes=[], points=[])
    for kind in (rewards.BoxIoU, rewards.PointDistance, rewards.OverlapHit, rewards.CornerHit, rewards.PointHit):
        assert values(kind(), empty, wrong) == [1, 0]
        assert values(kind(empty=0.0), empty) == [0]
    assert values(rewards.FormatJSON(), empty, wrong) == [1, 1]
    assert values(rewards.FormatJSON(empty=0.0), empty) == [0]
    assert values(rewards.CountMatch(), empty, wrong) == [1, 0]


def test_what_a_sample_lacks_is_unknown():
    response = answered(said(((1, 2, 30, 40), (2, 3))))
    for kind in (rewards.BoxIoU, rewards.PointDistance, rewards.CountMatch):
        assert values(kind(), response) == [None]
        assert "unknown" in kind()([response]).reasons[0]
    boxes_alone = answered(said(((1, 2, 30, 40), (2, 3))), boxes=[[1, 2, 30, 40]])
    assert values(rewards.BoxIoU(), boxes_alone) == [1]
    assert values(rewards.PointDistance(), boxes_alone) == [None]
    assert values(rewards.CountMatch(), answered(said(), reference="0")) == [1]


def test_terms_of_the_text_judge_any_task():
    text = SOD.response("a <look>cup</look>", ["a cup"])
    group = ImageGroup("sample-2", "sod", (torch.zeros(4, 4, 3, dtype=torch.uint8),))
    response = Response(group, text, SOD.parse(text))
    assert values(rewards.Look(), response) == [1]
    assert values(rewards.Look("focus"), response) == [0]
    assert "no <focus>" in rewards.Look("focus")([response]).reasons[0]
    assert values(rewards.FormatTags(), response) == [1]
    assert values(rewards.NonRepeat(), response) == [1]
    with pytest.raises(ValueError, match=r"sample-2: reward term 'box' compares boxes, and sod has none"):
        rewards.BoxIoU()([response])


def test_the_recipes_total_and_its_bounds():
    terms = [rewards.FormatTags(), rewards.FormatJSON(0.0), rewards.Look(), rewards.NonRepeat(), rewards.BoxIoU(0.0)]
    terms += [rewards.CountMatch(), rewards.PointDistance(0.0)]
    weights = {"tags": 1, "json": 2, "look": 1, "non_repeat": 1, "box": 1, "count": 1, "point": 1}
    reward = rewards.Reward(terms, weights)
    box, point = (100, 120, 300, 400), (200, 250)
    response = answered(said((box, point)), boxes=[box], points=[point], size=(840, 840))
    assert reward([response]).total.tolist() == [8]
    assert reward.bounds == (0, 8)
