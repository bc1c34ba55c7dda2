"""What matched pairs earn of IASM, the reward of instances: properties, hand arithmetic, and panoptic quality beside it.

Legend: M predicted and I true instances, L = M + I - matched. Cells are those of a 4 x 4 grid, so that what lies in one
overlaps nothing in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_sal.metrics import MatchedStructureMeasure
from lightning_sal.metrics.functional import (
    instance_aligned_structure_measure,
    matched_structure_measure,
    structure_measure,
)

SIDE = 64
EMPTY = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)


class Draw:
    """Random numbers of a seed, and masks of them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def whole(self, low: int, high: int) -> int:
        """From `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < share

    def cells(self) -> list[int]:
        return torch.randperm(16, generator=self.generator).tolist()

    def box(self, cell: int) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of a box in a cell."""
        height, width = self.whole(6, 15), self.whole(6, 15)
        top, left = 16 * (cell // 4) + self.whole(0, 16 - height), 16 * (cell % 4) + self.whole(0, 16 - width)
        return top, left, top + height, left + width

    def near(self, box: tuple[int, int, int, int], off: int) -> tuple[int, int, int, int]:
        """The box with each side up to `off` pixels off."""
        top, left, bottom, right = (max(side + self.whole(-off, off), 0) for side in box)
        return top, left, bottom, right

    def blobs(self, count: int) -> Tensor:
        return torch.rand(count, 6, 7, generator=self.generator) > 0.6


def masks(*boxes: tuple[int, int, int, int]) -> Tensor:
    """(N, 64, 64) of boxes (top, left, bottom, right)."""
    found = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(found, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return found


def earned(preds: Tensor, target: Tensor) -> float:
    return matched_structure_measure(preds.double(), target).item()


def defined(preds: Tensor, target: Tensor) -> float:
    return instance_aligned_structure_measure(preds.double(), target).item()


def iou(a: Tensor, b: Tensor) -> float:
    return (a & b).sum().item() / max((a | b).sum().item(), 1)


def scene(seed: int, off: int = 3) -> tuple[Draw, list[int], Tensor, Tensor]:
    """An image of 1 to 4 instances and an answer that finds some of them: a draw, free cells, masks of both."""
    draw = Draw(seed)
    cells = draw.cells()
    boxes = [draw.box(cell) for cell in cells[: draw.whole(1, 4)]]
    found = [draw.near(box, off) for box in boxes if draw.chance(0.7)]
    return draw, cells[len(boxes) :], masks(*found), masks(*boxes)


@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_equals_a_search_of_all_matchings(threshold: float) -> None:
    for seed in range(25):
        draw = Draw(seed)
        preds, target = draw.blobs(draw.whole(1, 4)), draw.blobs(draw.whole(1, 4))
        m, i = len(preds), len(target)
        overlap = [[iou(a, b) for b in target] for a in preds]
        found = []
        for rows in itertools.chain.from_iterable(itertools.combinations(range(m), k) for k in range(min(m, i) + 1)):
            for columns in itertools.permutations(range(i), len(rows)):
                pairs = list(zip(rows, columns, strict=True))
                if all(overlap[a][b] >= threshold for a, b in pairs):
                    s = sum(structure_measure(preds[a][None], target[b][None]).item() for a, b in pairs)
                    found.append((sum(overlap[a][b] for a, b in pairs), s / (m + i - len(pairs))))
        best = max(total for total, _ in found)
        value = matched_structure_measure(preds, target, threshold).item()
        assert any(value == pytest.approx(score, abs=1e-5) for total, score in found if total > best - 1e-12)


def test_the_checked_case_by_hand() -> None:
    """Three objects of 16 x 16 pixels of 64 x 64; answers find them up to one pixel at each side.

    A missed one fills a part of every quadrant about its own centroid, so an empty map has S_r = 0 there and
    S = S_o / 2 = (1 - 1/16) / 2. An expression that finds nothing has S = 1 against the empty mask.
    """
    target = masks(*((at, at, at + 16, at + 16) for at in (8, 24, 40)))
    found = masks(*((at + 1, at + 1, at + 15, at + 15) for at in (8, 24, 40)))
    s = structure_measure(found, target).double()
    one = torch.cat([found[1:2], EMPTY.expand(10, -1, -1)])  # and ten that are not there
    assert defined(found, target) == pytest.approx(s.mean().item(), abs=1e-6)
    assert defined(one, target) == pytest.approx((s[1].item() + 2 * (15 / 16) / 2 + 10) / 13, abs=1e-6)
    assert f"{defined(one, target):.3f} {defined(found, target):.3f}" == "0.911 0.907"  # the definition pays for it
    assert earned(found, target) == pytest.approx(s.mean().item(), abs=1e-6)
    assert earned(one, target) == pytest.approx(s[1].item() / 13, abs=1e-6)
    assert f"{earned(one, target):.3f} {earned(found, target):.3f}" == "0.070 0.907"


@pytest.mark.parametrize("seed", range(40))
def test_an_absent_object_never_raises_it(seed: int) -> None:
    draw, free, found, target = scene(seed)
    before = earned(found, target)
    for cell in free[:4]:
        other = EMPTY if draw.chance(0.5) else masks(draw.box(cell))
        at = draw.whole(0, len(found))
        found = torch.cat([found[:at], other, found[at:]])
        after = earned(found, target)
        assert after < before or before == after == 0
        before = after


@pytest.mark.parametrize("seed", range(40))
def test_nor_does_one_that_overlaps_too_little_where_all_overlap_and_tie(seed: int) -> None:
    """Few pixels, so that overlaps are often equal: what fits nowhere takes L + 1 for L, and moves no pair."""
    draw = Draw(seed)
    preds, target = (torch.rand(draw.whole(1, 4), 2, 3, generator=draw.generator) > 0.5 for _ in range(2))
    other = torch.rand(2, 3, generator=draw.generator) > 0.5
    if max(iou(other, each) for each in target) >= 0.3:
        other[:] = False
    before, after = (
        matched_structure_measure(side.double(), target, 0.3).item()
        for side in (preds, torch.cat([preds, other[None]]))
    )
    lengths = range(max(len(preds), len(target)), len(preds) + len(target) + 1)  # what L may be
    assert any(after == pytest.approx(before * length / (length + 1), abs=1e-9) for length in lengths)


def test_a_small_overlap_moves_no_pair() -> None:
    """p holds g (IoU 40/80) and half of h (40/88); q is a scrap of g (3/40), below 0.1.

    The definition pairs p with h and q with g, 46/88 + 3/40 > 40/80, and then drops the second; here p stays with g.
    """
    target = masks((0, 0, 1, 40), (2, 0, 3, 48))
    p = target[:1] | masks((2, 0, 3, 40))
    q = masks((0, 0, 1, 3))
    s = [structure_measure(p.double(), each[None]).item() for each in target]
    assert abs(s[0] - s[1]) > 0.01
    assert earned(p, target) == pytest.approx(s[0] / 2, abs=1e-9)
    assert earned(torch.cat([p, q]), target) == pytest.approx(s[0] / 3, abs=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_a_better_matched_set_never_lowers_it(seed: int) -> None:
    _, _, found, target = scene(seed)
    fits = [[iou(a, b) >= 0.1 for b in target] for a in found]
    for number, instance in enumerate(target):
        before = earned(found, target)
        rows = [row for row, fit in enumerate(fits) if fit[number]]
        better = found.clone()
        if rows:
            better[rows[0]] = instance  # the exact mask of what was found
        else:
            better = torch.cat([better, instance[None]])  # or of what was missed, which adds 1 / L
        length = len(found) + len(target) - sum(any(column) for column in zip(*fits, strict=True))
        after = earned(better, target)
        assert after >= before
        if not rows:
            assert after == pytest.approx(before + 1 / length, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_bounded_below_iasm_and_blind_to_order(seed: int) -> None:
    draw = Draw(seed)
    preds, target = draw.blobs(draw.whole(0, 5)), draw.blobs(draw.whole(0, 5))
    value = earned(preds, target)
    assert 0 <= value <= 1
    assert value == pytest.approx(earned(preds.flip(0), target), abs=1e-12)
    assert value == pytest.approx(earned(preds, target.flip(0)), abs=1e-12)
    _, _, found, target = scene(seed)
    assert earned(found, target) <= defined(found, target)


@pytest.mark.parametrize("seed", range(20))
def test_one_too_many_costs_what_one_missed_costs(seed: int) -> None:
    draw, free, _, target = scene(seed)
    others = masks(*(draw.box(cell) for cell in free[: draw.whole(0, 3)]))
    found = masks(*(draw.near(tuple(_box(each)), 2) for each in target))
    both = torch.cat([target, others])
    # Named and not there; there and not named. The S of the pairs is the same.
    assert earned(torch.cat([found, others]), target) == pytest.approx(earned(found, both), abs=1e-12)
    assert earned(both, target) == pytest.approx(len(target) / len(both), abs=1e-9)
    assert earned(target, both) == pytest.approx(len(target) / len(both), abs=1e-9)


def _box(mask: Tensor) -> list[int]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1]


def test_nothing_on_one_side_or_both_and_empty_masks() -> None:
    none, one = EMPTY[:0], masks((4, 4, 20, 20))
    assert earned(none, none) == 1
    assert earned(one, none) == earned(none, one) == 0
    assert earned(EMPTY, none) == earned(none, EMPTY) == 0
    assert earned(EMPTY, EMPTY) == 0  # two empty masks are no pair: IoU 0
    assert earned(EMPTY, one) == 0
    assert earned(torch.cat([one, EMPTY, EMPTY]), one) == pytest.approx(1 / 3)
    assert earned(torch.cat([one, EMPTY]), torch.cat([one, EMPTY])) == pytest.approx(1 / 3)


def panoptic_quality(preds: Tensor, target: Tensor) -> float:
    """Kirillov et al. 2019, arXiv:1801.00868: sum of IoU over TP, by TP + FP/2 + FN/2; a pair has IoU > 0.5."""
    overlaps = [iou(a, b) for a in preds for b in target]
    matched = [overlap for overlap in overlaps if overlap > 0.5]  # unique, as masks of one side do not overlap
    return sum(matched) / (len(matched) + (len(preds) - len(matched)) / 2 + (len(target) - len(matched)) / 2)


def wrongly_ordered(measure: Callable[[Tensor, Tensor], float], seed: int, images: int = 50) -> float:
    """Share of pairs of answers to an image that a measure orders against panoptic quality; equal ones are left out.

    An image has 1 to 4 objects. An answer finds each with chance 0.7, sides up to one pixel off, and names 0 to 3 objects
    that are not there, of which the segmenter finds nothing in half of the cases, and elsewhere something else.
    """
    draw = Draw(seed)
    wrong = pairs = 0
    for _ in range(images):
        cells = draw.cells()
        boxes = [draw.box(cell) for cell in cells[: draw.whole(1, 4)]]
        target, values = masks(*boxes), []
        for _ in range(6):
            found = masks(*(draw.near(box, 1) for box in boxes if draw.chance(0.7)))
            absent = cells[len(boxes) :][: draw.whole(0, 3)]
            others = [EMPTY if draw.chance(0.5) else masks(draw.box(cell)) for cell in absent]
            answer = torch.cat([found, *others])
            values.append((panoptic_quality(answer, target), measure(answer, target)))
        for (truth, value), (other_truth, other_value) in itertools.combinations(values, 2):
            if abs(truth - other_truth) > 1e-9:
                pairs += 1
                wrong += (truth - other_truth) * (value - other_value) < 0
    return wrong / pairs


def test_it_orders_answers_as_panoptic_quality_does_and_the_definition_does_not() -> None:
    assert wrongly_ordered(earned, 0) < 0.10
    assert wrongly_ordered(defined, 0) > 0.25


def test_the_metric_is_the_mean_over_images() -> None:
    images = [scene(seed)[2:] for seed in range(4)]
    metric = MatchedStructureMeasure()
    metric.update([preds for preds, _ in images[:3]], [target for _, target in images[:3]])
    metric.update(*images[3])
    assert metric.compute().item() == pytest.approx(sum(earned(*image) for image in images) / 4, abs=1e-9)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_a_threshold_that_pairs_what_does_not_overlap_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"iou_threshold must lie in \(0, 1\]"):
        matched_structure_measure(EMPTY, EMPTY, threshold)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_numbers_are_thresholded_and_give_their_precision(dtype: torch.dtype) -> None:
    _, _, found, target = scene(3)
    value = matched_structure_measure(torch.where(found, 0.7, 0.4).to(dtype), target)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.item() == pytest.approx(earned(found, target), abs=1e-6)
