"""IASM against hand arithmetic, an assignment by brute force, and identities."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from lightning_sal.metrics import InstanceAlignedStructureMeasure
from lightning_sal.metrics.functional import instance_aligned_structure_measure, structure_measure


def boxes(*corners: tuple[int, int, int, int], size: tuple[int, int] = (10, 10)) -> Tensor:
    """Masks of boxes (top, left, bottom, right)."""
    masks = torch.zeros(len(corners), *size, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, corners, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def blobs(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, 6, 7, generator=draw) > 0.6


def by_brute_force(preds: Tensor, target: Tensor, threshold: float) -> list[float]:
    """IASM of every assignment whose total IoU is the largest."""

    def iou(a: Tensor, b: Tensor) -> float:
        return (a & b).sum().item() / max((a | b).sum().item(), 1)

    masks, truth = (torch.cat([side, torch.zeros_like(side[:1])]) for side in (preds, target))  # the empty one is last
    columns = len(truth)
    s = structure_measure(masks.repeat_interleave(columns, 0).double(), truth.repeat(len(masks), 1, 1))
    s = s.view(len(masks), columns).tolist()
    ious = [[iou(a, b) for b in target] for a in preds]
    few, many = sorted((len(preds), len(target)))
    swap = len(preds) > len(target)
    totals: list[tuple[float, float]] = []
    for chosen in itertools.permutations(range(many), few):
        pairs = [(c, f) if swap else (f, c) for f, c in enumerate(chosen)]
        total = sum(ious[m][i] for m, i in pairs)
        kept = [(m, i) for m, i in pairs if ious[m][i] >= threshold]
        scores = [s[m][i] for m, i in kept]
        scores += [s[m][-1] for m in range(len(preds)) if m not in {m for m, _ in kept}]
        scores += [s[-1][i] for i in range(len(target)) if i not in {i for _, i in kept}]
        totals.append((total, sum(scores) / len(scores)))
    best = max(total for total, _ in totals)
    return [score for total, score in totals if total > best - 1e-12]


@pytest.mark.parametrize(("m", "i"), [(1, 1), (2, 2), (3, 3), (2, 4), (4, 2), (5, 3), (1, 4), (4, 4)])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3])
def test_equals_the_best_of_all_assignments(m: int, i: int, threshold: float) -> None:
    for seed in range(5):
        preds, target = blobs(m, seed), blobs(i, 100 + seed)
        expected = by_brute_force(preds, target, threshold)
        value = instance_aligned_structure_measure(preds, target, threshold).item()
        assert any(value == pytest.approx(score, abs=1e-6) for score in expected)


def test_total_iou_is_maximised_where_greedy_matching_would_not() -> None:
    target = boxes((0, 0, 1, 6), (2, 0, 3, 5), size=(4, 8))
    preds = torch.stack([target[0] | target[1], boxes((0, 0, 1, 3), size=(4, 8))[0]])
    # IoU of p0: 6/11 and 5/11, of p1: 3/6 and 0. Greedy takes 6/11 + 0, the best is 5/11 + 3/6.
    expected = structure_measure(preds, target.flip(0)).mean()
    torch.testing.assert_close(instance_aligned_structure_measure(preds, target), expected)


def test_hand_arithmetic_of_matched_and_unmatched() -> None:
    # 10 x 10, three true boxes of 4 pixels. The first is found exactly: S = 1. A prediction of 4 pixels meets no box:
    # paired with an empty mask, S = 1 - 4/100. Two boxes are missed by it: an empty map against a box whose centroid
    # (halves up) leaves quadrants of r x c, (10-r) x c, ...: S_o = 0.96 (all of bg right, none of fg), and S_r = the
    # share of the quadrants without the object's pixels.
    target = boxes((0, 0, 2, 2), (4, 4, 6, 6), (7, 1, 9, 3))
    preds = boxes((0, 0, 2, 2), (0, 8, 2, 10))
    # box 2: rows 5, 6 -> 5.5 -> 6, columns likewise: all 4 pixels in the upper left 6 x 6, the rest is 64 pixels.
    # box 3: rows 8, 9 -> 9, columns 2, 3 -> 3: the upper left is 9 x 3 = 27, the rest 73.
    missed = [(0.96 + 0.64) / 2, (0.96 + 0.73) / 2]
    expected = (1 + (1 - 0.04) + sum(missed)) / 4
    assert instance_aligned_structure_measure(preds, target).item() == pytest.approx(expected, abs=1e-6)


def test_pairs_below_the_threshold_are_parted_and_at_the_threshold_kept() -> None:
    # 10 of 100 pixels of the union in common: IoU = 0.1, exactly the threshold.
    target = boxes((0, 0, 10, 10))
    preds = boxes((0, 0, 1, 10))
    together = structure_measure(preds, target)[0]
    empty = torch.zeros_like(target)
    parted = (structure_measure(preds, empty)[0] + structure_measure(empty, target)[0]) / 2
    torch.testing.assert_close(instance_aligned_structure_measure(preds, target, 0.1), together)
    torch.testing.assert_close(instance_aligned_structure_measure(preds, target, 0.10001), parted)
    assert together.item() == pytest.approx(0.1, abs=1e-6)
    assert parted.item() == pytest.approx((0.9 + 0) / 2, abs=1e-6)


def test_nothing_on_one_side_or_both() -> None:
    none, some = torch.zeros(0, 10, 10, dtype=torch.bool), boxes((0, 0, 2, 2), (4, 4, 6, 6))
    assert instance_aligned_structure_measure(none, none).item() == 1
    # predicted only: each earns 1 - 4/100
    assert instance_aligned_structure_measure(some, none).item() == pytest.approx(0.96, abs=1e-6)
    # missed only: S_o = 0.96. The first box (centroid 1.5 -> 2) fills its quadrant, so all four are constant: S_r = 1;
    # the second (5.5 -> 6) fills a part of one, 6 x 6, and the rest is constant: S_r = 0.64
    expected = ((0.96 + 1) / 2 + (0.96 + 0.64) / 2) / 2
    assert instance_aligned_structure_measure(none, some).item() == pytest.approx(expected, abs=1e-6)


def test_perfect_in_any_order_is_one_and_order_never_matters() -> None:
    target = boxes((0, 0, 2, 2), (4, 4, 6, 6), (7, 1, 9, 3), (3, 3, 7, 7))
    order = torch.tensor([2, 0, 3, 1])
    assert instance_aligned_structure_measure(target[order], target).item() == 1
    preds = boxes((0, 0, 3, 2), (4, 4, 7, 6), (3, 2, 7, 7))
    value = instance_aligned_structure_measure(preds, target)
    torch.testing.assert_close(instance_aligned_structure_measure(preds[[2, 0, 1]], target[order]), value)
    torch.testing.assert_close(instance_aligned_structure_measure(preds.mT, target.mT), value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_numbers_are_thresholded(dtype: torch.dtype) -> None:
    preds, target = boxes((0, 0, 3, 2), (4, 4, 7, 6)), boxes((0, 0, 2, 2), (4, 4, 6, 6))
    expected = instance_aligned_structure_measure(preds, target)
    value = instance_aligned_structure_measure(preds.to(dtype), target.to(dtype))
    torch.testing.assert_close(value.float(), expected)
    soft = torch.where(preds, 0.7, 0.4)
    torch.testing.assert_close(instance_aligned_structure_measure(soft, target), expected)


def test_instances_of_one_pixel() -> None:
    target = boxes((0, 0, 1, 1), (9, 9, 10, 10))
    assert instance_aligned_structure_measure(target.flip(0), target).item() == 1


def test_autocast_changes_nothing() -> None:
    preds, target = blobs(4, 1), blobs(3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        value = instance_aligned_structure_measure(preds, target)
    assert value == instance_aligned_structure_measure(preds, target)


@pytest.mark.parametrize(
    ("preds", "target", "threshold", "message"),
    [
        (torch.zeros(1, 4, 4), torch.zeros(2, 4, 5), 0.1, "share H and W"),
        (torch.zeros(4, 4), torch.zeros(2, 4, 4), 0.1, r"preds .*\(B, H, W\)"),
        (torch.full((2, 4, 4), float("nan")), torch.zeros(1, 4, 4), 0.1, r"preds\[0\]"),
        (torch.zeros(1, 4, 4), torch.stack([torch.zeros(4, 4), torch.full((4, 4), 2.0)]), 0.1, r"target\[1\]"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), 10.0, r"iou_threshold .* 10"),
    ],
)
def test_bad_input_is_refused(preds: Tensor, target: Tensor, threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instance_aligned_structure_measure(preds, target, threshold)


def test_metric_is_the_mean_over_images_with_any_number_of_instances() -> None:
    images = [
        (blobs(3, 1), blobs(2, 2)),
        (boxes((0, 0, 3, 3)), boxes()),
        (boxes(), boxes()),
        (blobs(1, 3), blobs(4, 4)),
    ]
    metric = InstanceAlignedStructureMeasure(iou_threshold=0.2)
    metric.update([preds for preds, _ in images[:3]], [target for _, target in images[:3]])
    metric.update(*images[3])
    expected = sum(instance_aligned_structure_measure(*image, 0.2).item() for image in images) / 4
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_metric_names_image_and_instance() -> None:
    good, bad = torch.zeros(2, 5, 5), torch.zeros(2, 5, 5)
    bad[1, 0, 0] = 7
    with pytest.raises(ValueError, match=r"image 1: preds\[1\]"):
        InstanceAlignedStructureMeasure().update([good, bad], [good, good])
