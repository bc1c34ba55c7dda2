"""Average precision of boxes against COCO evaluation, as faster-coco-eval has it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor

from lightning_sal.metrics import BoxAveragePrecision
from lightning_sal.metrics.functional import area_shares, box_iou, match_instances

Image = tuple[Tensor, Tensor, Tensor]  # predicted boxes (M, 4), true boxes (I, 4), scores (M,)
HEIGHT, WIDTH = 300, 400
NONE = torch.zeros(0, 4, dtype=torch.float64)


def random_boxes(count: int, draw: torch.Generator) -> Tensor:
    """(N, 4) boxes of whole pixels, of all sizes."""
    low = torch.rand(count, 2, generator=draw) * torch.tensor([WIDTH - 40, HEIGHT - 40])
    size = 5 + torch.rand(count, 2, generator=draw) ** 2 * 120
    high = torch.minimum(low + size, torch.tensor([WIDTH, HEIGHT]))
    return torch.cat([low, high], 1).round().double()


def images(count: int, seed: int, most: int = 8) -> list[Image]:
    """Images whose predictions are shifted true boxes, some twice, and others; some have none on either side."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        target = random_boxes(int(torch.randint(0, most, (), generator=draw)), draw)
        kept = target[torch.rand(len(target), generator=draw) > 0.2]
        shift = torch.randint(-6, 7, kept.shape, generator=draw) * (torch.rand(len(kept), 1, generator=draw) > 0.3)
        preds = torch.cat([kept + shift, kept[:1], random_boxes(int(torch.randint(0, most, (), generator=draw)), draw)])
        preds = preds[(preds[:, 2:] > preds[:, :2]).all(1)]
        found.append((preds, target, torch.rand(len(preds), generator=draw).double()))
    return found


def coco(found: list[Image], crowds: list[Tensor] | None = None) -> tuple[float, float, float]:
    """AP, AP50 and AP75 of COCO evaluation."""

    def bbox(box: Tensor) -> list[float]:
        x0, y0, x1, y1 = box.tolist()
        return [x0, y0, x1 - x0, y1 - y0]

    annotations, results = [], []
    for index, (preds, target, scores) in enumerate(found):
        for number, box in enumerate(target):
            crowd = int(crowds[index][number]) if crowds else 0
            about = {"id": len(annotations) + 1, "image_id": index, "category_id": 1, "iscrowd": crowd}
            annotations.append(about | {"bbox": bbox(box), "area": float((box[2:] - box[:2]).prod())})
        for box, score in zip(preds, scores.tolist(), strict=True):
            results.append({"image_id": index, "category_id": 1, "bbox": bbox(box), "score": score})
    pictures = [{"id": index, "height": HEIGHT, "width": WIDTH} for index in range(len(found))]
    truth = COCO({"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1].mean(1)
    return float(precision.mean()), float(precision[0]), float(precision[5])


def measured(found: list[Image], crowds: list[Tensor] | None = None) -> tuple[float, float, float]:
    metric = BoxAveragePrecision()
    columns = [list(column) for column in zip(*found, strict=True)] + ([crowds] if crowds else [])
    half = len(found) // 2
    for image in zip(*(column[:half] for column in columns), strict=True):
        metric.update(*image)
    metric.update(*(column[half:] for column in columns))
    values = metric.compute()
    return values["ap"].item(), values["ap50"].item(), values["ap75"].item()


def distinct(found: list[Image]) -> list[Image]:
    """The same with scores in the same order of which no two are equal."""
    order = torch.cat([scores for *_, scores in found]).argsort(stable=True).argsort()
    ranks = order.split([len(scores) for *_, scores in found])
    return [(p, t, (r + 1.0) / (len(order) + 1)) for (p, t, _), r in zip(found, ranks, strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_equals_coco_evaluation(seed: int) -> None:
    found = distinct(images(80, seed))
    expected = coco(found)
    assert 0 < expected[0] < expected[1] < 1
    assert measured(found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_equals_coco_evaluation_by_the_area_of_the_boxes(seed: int) -> None:
    """Whole pixels over those of one size of image."""
    found = [(p, t, area_shares(p, HEIGHT, WIDTH)) for p, t, _ in images(60, seed + 10)]
    taken: set[float] = set()
    kept = []
    for preds, target, shares in found:  # equal areas are the next test's
        new = [n for n, share in enumerate(shares.tolist()) if share not in taken and not taken.add(share)]
        kept.append((preds[new], target, shares[new]))
    assert measured(kept) == pytest.approx(coco(kept), abs=1e-12)


def test_overlaps_that_are_equal_and_at_a_threshold() -> None:
    """IoU of exactly 1/2, 3/5, 3/4; two truths that one prediction overlaps alike."""
    box = torch.tensor([[0.0, 0.0, 20.0, 10.0]], dtype=torch.float64)
    found = [
        (box - torch.tensor([0, 0, 10, 0]), box, torch.tensor([0.9])),
        (box - torch.tensor([0, 0, 8, 0]), box, torch.tensor([0.8])),
        (box - torch.tensor([0, 0, 5, 0]), box, torch.tensor([0.7])),
        (box, torch.cat([box - 1, box + 1]), torch.tensor([0.6])),
        (torch.cat([box, box - 1]), torch.cat([box - 1, box + 1]), torch.tensor([0.5, 0.4])),
    ]
    assert measured(found) == pytest.approx(coco(found), abs=1e-12)


def test_images_without_truth_or_without_detection_and_more_than_a_hundred() -> None:
    found = images(20, 3)
    found += [(preds, NONE, scores) for preds, _, scores in images(5, 4)]
    found += [(NONE, target, torch.zeros(0)) for _, target, _ in images(5, 5)]
    found += images(3, 6, most=150)
    assert max(len(preds) for preds, *_ in found) > 100
    found = distinct(found)
    assert measured(found) == pytest.approx(coco(found), abs=1e-12)
    without = BoxAveragePrecision()
    without.update(torch.ones(1, 4).cumsum(1), NONE)
    assert without.compute()["ap"].isnan()
    without.update(NONE, torch.ones(1, 4).cumsum(1))
    assert without.compute()["ap"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_equal_scores_enter_together_which_is_the_least_that_an_order_of_coco_gives(seed: int) -> None:
    """One prediction an image, all of few scores: COCO takes equal ones in the order of the images."""
    found = [(p[:1], t, (s[:1] * 4).floor() / 4) for p, t, s in images(60, seed + 20) if len(p)]
    value = measured(found)[1]
    draw = np.random.default_rng(seed)
    orders = [[found[n] for n in draw.permutation(len(found))] for _ in range(8)]
    assert {measured(order)[1] for order in orders} == {value}
    assert min(coco(order)[1] for order in orders) >= value - 1e-12
    hits = [match_instances(box_iou(p, t), s, torch.tensor([0.5])).any().item() for p, t, s in found]  # 1 for a hit
    alarms_first = [found[n] for n in sorted(range(len(found)), key=lambda n: hits[n])]
    assert coco(alarms_first)[1] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("crowd", [False, True])
def test_equals_coco_evaluation_where_scores_bunch_and_beside_crowds(seed: int, crowd: bool) -> None:
    """Scores within 1e-5 of 0, most of them far closer."""
    found = [(preds, target, scores**8 * 1e-5) for preds, target, scores in images(80, seed + 30)]
    draw = torch.Generator().manual_seed(seed)
    crowds = [torch.rand(len(target), generator=draw) < (0.35 if crowd else 0) for _, target, _ in found]
    small = [torch.cat([t[c][:, :2], t[c][:, :2] + 4], 1) for (_, t, _), c in zip(found, crowds, strict=True)]
    found = [  # boxes within crowds, with scores among the others
        (
            torch.cat([p, s]),
            t,
            torch.cat([scores, scores.new_tensor([3e-7 + n / 1e9 + k / 1e12 for k in range(len(s))])]),
        )
        for n, ((p, t, scores), s) in enumerate(zip(found, small, strict=True))
    ]
    expected = coco(found, crowds)
    assert 0 < expected[0] < expected[1] < 1
    assert measured(found, crowds) == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    """Of three truths two are found, by the first and the third of four predictions: P = 1, then 2/3."""
    truth = torch.tensor([[x, 0.0, x + 10, 10] for x in (0.0, 20, 40)])
    preds = torch.cat([truth[:1], truth[:1] + 100, truth[1:2], truth[:1] + 200])
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 5):
        metric = BoxAveragePrecision()
        metric.update(preds[list(order)], truth, torch.tensor([0.9, 0.8, 0.7, 0.6])[list(order)])
        assert metric.compute()["ap"].item() == pytest.approx((34 * 1 + 33 * 2 / 3) / 101, abs=1e-12)
