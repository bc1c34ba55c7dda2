"""IoU, areas, precision, recall and F1 of boxes, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_sal.metrics import BoxPrecisionRecall
from lightning_sal.metrics.functional import area_shares, box_iou, count_matches, precision_recall_f1

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "dr_seg" / "dr_seg_eval.json"
NONE = torch.zeros(0, 4)


def boxes(*corners: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(corners, dtype=torch.float64).view(-1, 4)


def test_iou_is_of_real_rectangles_without_an_added_pixel() -> None:
    a = boxes((0, 0, 10, 10), (0, 0, 4, 2))
    b = boxes((5, 0, 15, 10), (2, 1, 6, 3), (10, 0, 20, 10), (0, 0, 4, 2))
    # 50 of 150; 8 of 100; touching; the second in the first: 8 of 100 | 0 of 58; 2 of 14; none; itself
    expected = [[50 / 150, 8 / 100, 0, 8 / 100], [0, 2 / 14, 0, 1]]
    assert box_iou(a, b).tolist() == [pytest.approx(row, abs=1e-15) for row in expected]


def test_boxes_that_cover_nothing_overlap_with_nothing() -> None:
    flat, reversed_ = boxes((3, 3, 3, 9)), boxes((9, 9, 3, 3))
    for a in (flat, reversed_):
        for b in (flat, reversed_, boxes((0, 0, 10, 10))):
            assert box_iou(a, b).item() == 0
    assert box_iou(NONE, flat).shape == (0, 1)
    assert box_iou(flat, NONE).shape == (1, 0)


def test_bad_boxes_are_named() -> None:
    with pytest.raises(ValueError, match=r"target\[1\] is .*nan.*must be finite"):
        box_iou(NONE, torch.tensor([[0, 0, 1, 1], [0, 0, torch.nan, 1]]))
    with pytest.raises(ValueError, match=r"preds must have the shape \(N, 4\).*not \(3,\)"):
        box_iou(torch.zeros(3), NONE)


@pytest.mark.skipif(
    not FIXTURE.is_file(), reason="needs ../shared, which lies beside the project where it is developed"
)
def test_iou_equals_that_of_a_published_evaluation() -> None:
    pairs = json.loads(FIXTURE.read_text())["box_iou_no_plus_one"]
    assert len(pairs) > 10
    for pair in pairs:
        assert box_iou(boxes(tuple(pair["a"])), boxes(tuple(pair["b"]))).item() == pytest.approx(pair["iou"], abs=1e-12)


def test_the_area_share_is_whole_pixels_over_those_of_the_image() -> None:
    given = boxes((0, 0, 7, 3), (-5, -5, 2, 2), (20, 20, 30, 30), (6, 6, 2, 9))
    assert area_shares(given, 12, 10).tolist() == [21 / 120, 4 / 120, 0, 0]
    assert area_shares(given.float(), 12, 10).dtype == torch.float64
    assert area_shares(boxes((0, 0, 10, 12)), 12, 10).item() == 1


def test_the_largest_matching_is_taken_where_a_greedy_one_is_smaller() -> None:
    overlaps = torch.tensor([[0.9, 0.6, 0.0], [0.8, 0.0, 0.0], [0.0, 0.7, 0.5]])
    assert count_matches(overlaps) == 3  # 0-1, 1-0, 2-2; greedily 0-0, then 2-1: two
    assert count_matches(overlaps, 0.65) == 2
    assert count_matches(overlaps[:0]) == count_matches(overlaps[:, :0]) == 0


def test_precision_recall_and_f1_by_hand() -> None:
    found = precision_recall_f1(
        torch.tensor([2, 0, 0, 0, 3]), torch.tensor([4, 0, 2, 0, 3]), torch.tensor([3, 0, 0, 5, 3])
    )
    assert found.tolist() == [[2 / 4, 1, 0, 0, 1], [2 / 3, 1, 0, 0, 1], [4 / 7, 1, 0, 0, 1]]


def test_means_count_images_and_pooled_values_boxes() -> None:
    one = boxes((0, 0, 10, 10))
    images = [
        (torch.cat([one, one + 100, one + 200]), torch.cat([one + 1, one + 300])),  # 81/119: found; 1 of 3, 1 of 2
        (one, one),  # 1 of 1
        (NONE, NONE),  # right
        (NONE, one),  # missed
        (None, NONE),  # no answer: wrong, though there is nothing
    ]
    metric = BoxPrecisionRecall()
    metric.update(*map(list, zip(*images[:3], strict=True)))
    for pred, true in images[3:]:
        metric.update([pred], [true])
    values = {name: value.item() for name, value in metric.compute().items()}
    expected = {"precision": (1 / 3 + 1 + 1) / 5, "recall": (1 / 2 + 1 + 1) / 5, "f1": (2 / 5 + 1 + 1) / 5}
    expected |= {"precision_pooled": 2 / 4, "recall_pooled": 2 / 4, "f1_pooled": 4 / 8}
    assert values == pytest.approx(expected, abs=1e-15)


def test_the_order_of_boxes_does_not_matter() -> None:
    draw = torch.Generator().manual_seed(0)
    corners = torch.rand(9, 2, generator=draw) * 10
    preds = torch.cat([corners, corners + 6], 1)
    target = preds + torch.rand(9, 4, generator=draw)
    first, second = BoxPrecisionRecall(), BoxPrecisionRecall()
    first.update(preds, target)
    second.update(preds[torch.randperm(9, generator=draw)], target[torch.randperm(9, generator=draw)])
    assert first.compute() == second.compute()


def test_bad_input_is_refused_by_image_and_nothing_is_added() -> None:
    metric = BoxPrecisionRecall()
    with pytest.raises(ValueError, match=r"image 1: preds\[0\] is .*inf"):
        metric.update([NONE, torch.full((1, 4), torch.inf)], [NONE, NONE])
    with pytest.raises(ValueError, match="2 preds and 1 targets"):
        metric.update([NONE, NONE], [NONE])
    assert metric.total == 0
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        BoxPrecisionRecall(0)
