"""What answers that list objects are measured by, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_sal.evaluation.metrics import compute_all
from lightning_sal.frames import Square
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import COUNTING, DETECTION, PERCEPTION, SIS, SOD, Objects
from lightning_sal.tasks.measures import joined, primary
from lightning_sal.tasks.objects import inner_point

H, W = 20, 40
A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 40.0, 20.0)  # 100 and 400 of 800 pixels


def filled(*boxes: tuple[float, ...]) -> Tensor:
    mask = torch.zeros(1, H, W, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        mask[0, int(y0) : int(y1), int(x0) : int(x1)] = True
    return mask


def sample(*boxes: tuple[float, ...], task: str = "perception", **known) -> ImageGroup:
    image = torch.zeros(H, W, 3, dtype=torch.uint8)
    known = {"masks": (filled(*boxes),), "boxes": (torch.tensor(boxes).view(-1, 4),)} | known
    return ImageGroup("s", task, (image,), question="the squares", **known)


def listed(*boxes: tuple[float, ...] | None) -> Objects:
    return Objects(boxes, tuple((1.0, 1.0) for _ in boxes))


UNREADABLE = Objects(readable=False, reason="no JSON")


def measured(task, *samples) -> dict[str, float]:
    """What some triples of sample, answer and mask reach together."""
    metrics = task.metrics()
    for group, answer, mask in samples:
        task.update(metrics, group, answer, () if mask is None else (mask,))
    return {name: value.item() for name, value in compute_all(metrics).items()}


def test_each_task_names_what_it_is_judged_by() -> None:
    assert [primary(task.measures()) for task in (PERCEPTION, DETECTION, COUNTING)] == ["giou", "f1", "count_accuracy"]
    for task in (PERCEPTION, DETECTION, COUNTING):
        group = sample(A)
        found = measured(
            task, (group, listed(A), filled(A) if task is PERCEPTION else None), (sample(), listed(), None)
        )
        assert set(found) <= set(task.measures())
    assert PERCEPTION.prompt_type
    assert not DETECTION.prompt_type
    assert not COUNTING.prompt_type


def test_one_measure_may_be_primary_in_one_task_alone() -> None:
    whole = joined(task.measures() for task in (SOD, PERCEPTION, SIS, DETECTION, COUNTING))
    assert all(whole[name].primary for name in ("s_measure", "giou", "f1", "count_accuracy"))
    assert whole["giou"].reported
    assert not whole["precision"].primary
    with pytest.raises(ValueError, match="two tasks mean different things by the measure 'giou'"):
        joined([SOD.measures(), {"giou": replace(SOD.measures()["giou"], lower_is_better=True)}])


def test_masks_by_hand() -> None:
    half = filled((0, 0, 10, 5))  # 50 of 100
    values = measured(
        PERCEPTION,
        (sample(A), listed(A), half),
        (sample(), listed(), filled()),  # right: nothing is there
        (sample(), UNREADABLE, filled()),  # wrong, though nothing is there
        (sample(B), UNREADABLE, filled()),
    )
    assert values["giou"] == pytest.approx((0.5 + 1 + 0 + 0) / 4, abs=1e-15)
    assert values["ciou"] == pytest.approx(50 / (100 + 400), abs=1e-15)
    assert values["unreadable"] == 2 / 4
    assert values["no_target_accuracy"] == 1 / 2
    assert values["target_accuracy"] == 1 / 2


def test_boxes_by_hand() -> None:
    near = (0.0, 0.0, 10.0, 9.0)  # IoU 0.9 with A
    values = measured(
        DETECTION,
        (sample(A, B), listed(B, near, (30.0, 0.0, 31.0, 1.0)), None),  # 2 of 3, 2 of 2
        (sample(A), listed(None), None),  # an entry without a box is a false alarm
        (sample(), listed(), None),
        (sample(A), UNREADABLE, None),
    )
    assert values["precision"] == pytest.approx((2 / 3 + 0 + 1 + 0) / 4, abs=1e-15)
    assert values["recall"] == pytest.approx((1 + 0 + 1 + 0) / 4, abs=1e-15)
    assert values["f1"] == pytest.approx((4 / 5 + 0 + 1 + 0) / 4, abs=1e-15)
    assert (values["precision_pooled"], values["recall_pooled"]) == (2 / 4, 2 / 4)
    # By area B (400) comes before the near one (90), then the speck and the entry that covers nothing: P = 1 up to R = 1/2
    assert values["ap50"] == pytest.approx(51 / 101, abs=1e-12)
    assert values["ap"] == pytest.approx((9 * 51 + 26) / 1010, abs=1e-12)  # at 0.95 B alone: R = 1/4, points 0 .. 0.25
    assert values["count_accuracy"] == 2 / 4
    assert values["count_error"] == (1 + 0 + 0 + 1) / 4


def test_scores_of_boxes_take_the_place_of_their_areas() -> None:
    metrics = DETECTION.metrics()
    DETECTION.update(metrics, sample(A), listed(B, A), (), torch.tensor([0.1, 0.9]))
    assert compute_all(metrics)["ap50"] == 1
    DETECTION.update(metrics, sample(A), listed(B, A), ())
    assert compute_all(metrics)["ap50"] == 0.5


def test_counts_by_hand() -> None:
    bare = {"masks": None, "boxes": None}
    of = sample(task="counting", reference="3", **bare)
    values = measured(
        COUNTING,
        (of, listed(A, B, A), None),
        (of, listed(A), None),
        (replace(of, reference="0"), UNREADABLE, None),  # nothing was said, not "none"
        (replace(of, reference=None, points=(torch.zeros(2, 2),)), listed(A, B), None),
    )
    assert values["count_accuracy"] == 2 / 4
    assert values["count_error"] == (0 + 2 + 0 + 0) / 4
    assert values["no_target_accuracy"] == 0
    assert "f1" not in values
    assert "ap50" not in values


def test_a_sample_is_measured_by_what_it_knows() -> None:
    metrics = PERCEPTION.metrics()
    (row,) = PERCEPTION.update(metrics, sample(A, boxes=None), listed(A, B), (filled(A),))
    assert row == {"giou": 1.0, "unreadable": 0.0, "target_accuracy": 1.0}
    (row,) = PERCEPTION.update(metrics, sample(masks=(filled(),), boxes=None), None, (filled(A),))  # a method of masks
    assert row == {"giou": 0.0, "no_target_accuracy": 0.0}
    (row,) = DETECTION.update(metrics, sample(A, masks=None, task="detection"), listed(A), ())
    assert "giou" not in row
    assert COUNTING.update(COUNTING.metrics(), sample(A, boxes=None, masks=None), listed(A), ()) == []


def test_correctness_is_the_primary_measure() -> None:
    groups, answers = [sample(A, B), sample(), sample(), sample(A)], [listed(A), listed(), UNREADABLE, listed(B, A)]
    masks = [(filled(A),), (filled(),), (filled(),), (filled(A, B),)]
    assert PERCEPTION.correctness(groups, answers, masks) == pytest.approx([1 / 5, 1, 0, 1 / 5], abs=1e-6)
    assert DETECTION.correctness(groups, answers, [None] * 4) == pytest.approx([2 / 3, 1, 0, 2 / 3])
    assert COUNTING.correctness(groups, answers, [None] * 4) == [0, 1, 0, 0]
    for task in (PERCEPTION, DETECTION, COUNTING):
        for group, answer, mask, value in zip(
            groups, answers, masks, task.correctness(groups, answers, masks), strict=True
        ):
            (row,) = task.update(task.metrics(), group, answer, mask if task is PERCEPTION else ())
            assert row[primary(task.measures())] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "without", "message"),
    [
        (PERCEPTION, {"masks": None}, "s: perception needs masks and this sample has none; give its masks"),
        (DETECTION, {"boxes": None}, "s: detection needs boxes and this sample has none; give its boxes"),
        (COUNTING, {"boxes": None}, "s: counting needs a number and this sample has none; give its reference"),
        (
            COUNTING,
            {"boxes": None, "reference": "few"},
            "s: the reference .few. is no number of objects; give one >= 0",
        ),
    ],
)
def test_what_is_missing_is_named(task, without, message) -> None:
    with pytest.raises(ValueError, match=message):
        task.correctness([sample(A, **without)], [listed(A)], [None])


@pytest.mark.parametrize("task", [PERCEPTION, PERCEPTION.without_reasoning()])
def test_the_true_response_states_the_boxes_and_a_point_on_the_mask(task) -> None:
    ring = filled(B) & ~filled((22, 2, 38, 18))
    group = sample(A, B, masks=(filled(A) | ring,))
    text = task.true_response(group)
    answer = task.parse(text)
    assert answer.reason is None
    assert answer.boxes == (A, B)
    assert answer.points[0] == (4.5, 4.5)
    x, y = answer.points[1]
    assert ring[0, int(y), int(x)]  # its centre is a hole
    assert task.parse(task.true_response(sample())).boxes == ()
    there = task.spoken(text, group, Square(1000))
    assert task.locate(task.parse(there), group, Square(1000)).boxes == (A, B)
    given = replace(group, points=(torch.tensor([[3.0, 4.0], [21.0, 1.0]]),))
    assert task.parse(task.true_response(given)).points == ((3, 4), (21, 1))
    assert task.parse(task.true_response(replace(group, boxes=None))).boxes == (
        (0, 0, 40, 20),
    )  # around all of the mask
    assert task.parse(task.true_response(sample(boxes=None))).boxes == ()
    with pytest.raises(ValueError, match="s: the true answer of perception lists boxes and this sample has none"):
        task.true_response(replace(group, boxes=None, masks=None))


def test_a_point_without_a_mask_is_the_centre() -> None:
    assert inner_point(A, None) == (5, 5)
    assert inner_point(A, filled(B)[0]) == (5, 5)
    assert inner_point((-8, -8, 4, 4), filled(A)[0]) == (0.5, 0.5)
