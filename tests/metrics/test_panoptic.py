"""Panoptic quality and F1 of instances against brute force, torchmetrics and hand arithmetic."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.detection import panoptic_quality as of_torchmetrics

from lightning_sal.metrics import InstanceF1, PanopticQuality
from lightning_sal.metrics.functional import instance_f1, panoptic_quality
from lightning_sal.metrics.functional.panoptic import panoptic_counts


def strips(*spans: tuple[int, int]) -> Tensor:
    """Masks (N, 1, 20) of one row, True from the first to before the last column."""
    masks = torch.zeros(len(spans), 1, 20, dtype=torch.bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[0, start:end] = True
    return masks


def test_by_hand() -> None:
    target = strips((0, 10), (10, 14), (14, 20))
    preds = strips((0, 8), (12, 20))  # IoU 8/10, and 6/8 with the last
    found = panoptic_quality(preds.double(), target)
    assert found.sq.item() == pytest.approx((8 / 10 + 6 / 8) / 2)
    assert found.rq.item() == pytest.approx(2 / (2 + 0.5))
    assert found.pq.item() == pytest.approx(found.sq.item() * found.rq.item())
    assert [instance_f1(preds, target, t).item() for t in (0.5, 0.75, 0.8, 0.81)] == pytest.approx([0.8, 0.8, 0.4, 0])


def test_half_an_overlap_is_no_match_of_panoptic_quality_and_one_of_f1() -> None:
    preds, target = strips((0, 5)), strips((0, 10))
    assert panoptic_quality(preds, target).pq.item() == 0
    assert instance_f1(preds, target).item() == 1


@pytest.mark.parametrize("seed", range(8))
def test_equals_torchmetrics_where_masks_do_not_overlap(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    true = torch.randint(0, 5, (12, 16), generator=draw).repeat_interleave(3, 0)
    found = torch.where(torch.rand(true.shape, generator=draw) < 0.2 + 0.1 * seed, true.roll(1, 1), true)
    masks = [torch.stack([labels == k for k in labels.unique()]) for labels in (found, true)]
    maps = [torch.stack([torch.zeros_like(labels), labels], -1)[None] for labels in (found, true)]
    expected = of_torchmetrics(*maps, things={0}, stuffs={1}, return_sq_and_rq=True, return_per_class=True)[0]
    for ours, theirs in zip(panoptic_quality(*masks), expected, strict=True):
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_of_masks_that_overlap_the_most_pairs_are_taken_and_the_best_of_these(seed: int) -> None:
    iou = torch.rand(4, 3 + seed % 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows, columns = sorted(iou.shape)
    table = iou if iou.shape[0] <= iou.shape[1] else iou.T
    every = (table[range(rows), list(places)] for places in permutations(range(columns), rows))
    best = max((int((pair > 0.5).sum()), pair[pair > 0.5].sum().item()) for pair in every)
    overlap, matches, instances = panoptic_counts(iou).tolist()
    assert (matches, overlap) == pytest.approx(best)
    assert instances == sum(iou.shape)


def test_images_without_instances() -> None:
    none, some = strips()[:, :, :20], strips((0, 5))
    assert all(value.isnan() for value in panoptic_quality(none, none))
    assert [value.item() for value in panoptic_quality(none, some)] == [0, 0, 0]
    assert [value.item() for value in panoptic_quality(some, none)] == [0, 0, 0]
    assert [instance_f1(*pair).item() for pair in ((none, none), (none, some), (some, none))] == [1, 0, 0]


def test_quality_is_of_sums_over_images_and_f1_a_mean_of_them() -> None:
    target = strips((0, 10), (10, 20))
    preds = [target, strips((0, 8)), strips()]
    quality, f1 = PanopticQuality(), InstanceF1()
    for metric in (quality, f1):
        metric.update(preds[0], target)
        metric.update(preds[1:], [target, target])
    found = quality.compute()
    assert found["sq"].item() == pytest.approx((1 + 1 + 0.8) / 3)
    assert found["rq"].item() == pytest.approx(2 * 3 / (3 + 6))
    assert found["pq"].item() == pytest.approx(2 * 2.8 / 9)
    assert {name: value.item() for name, value in f1.compute().items()} == pytest.approx(
        {"f1_50": (1 + 2 / 3) / 3, "f1_70": (1 + 2 / 3) / 3}
    )


def test_what_does_not_fit_is_refused_and_nothing_is_added() -> None:
    metric = PanopticQuality()
    with pytest.raises(ValueError, match=r"image 1: preds \(1, 1, 20\) and target \(1, 1, 9\) must share H and W"):
        metric.update([strips((0, 5))] * 2, [strips((0, 5)), strips((0, 5))[:, :, :9]])
    assert metric.total == 0
    with pytest.raises(ValueError, match="iou_threshold must lie in"):
        InstanceF1((0.5, 1.2))
    with pytest.raises(ValueError, match="iou_threshold must lie in"):
        instance_f1(strips((0, 5)), strips((0, 5)), 0)
