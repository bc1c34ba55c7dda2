"""Average precision against COCO evaluation (faster-coco-eval), hand arithmetic and identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from torch import Tensor

from lightning_sal.metrics import InstanceAveragePrecision

Image = tuple[Tensor, Tensor, Tensor]


def images(count: int, seed: int = 0) -> list[Image]:
    """Predicted and true instances (some found well, some badly, some not) and scores that differ by more than 1/65536."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        instances = int(torch.randint(0, 6, (), generator=draw))
        target = torch.zeros(instances, 40, 50, dtype=torch.bool)
        for mask in target:
            top, left = (int(torch.randint(0, side - 12, (), generator=draw)) for side in mask.shape)
            mask[top : top + 12, left : left + 10] = True
        moved = [mask.roll(int(torch.randint(0, 5, (), generator=draw)), 1) for mask in target]
        moved += [torch.rand(40, 50, generator=draw) > 0.9 for _ in range(int(torch.randint(0, 3, (), generator=draw)))]
        preds = torch.stack(moved) if moved else torch.zeros(0, 40, 50, dtype=torch.bool)
        found.append((preds, target, torch.rand(len(preds), generator=draw)))
    order = torch.cat([scores for *_, scores in found]).argsort().argsort()
    ranks = order.split([len(scores) for *_, scores in found])
    return [(p, t, (r + 0.5) / (len(order) + 1)) for (p, t, _), r in zip(found, ranks, strict=True)]


def coco(found: list[Image], thresholds: list[float], max_detections: int = 100) -> np.ndarray:
    """AP of COCO evaluation at each threshold."""
    annotations, results = [], []
    for index, (preds, target, scores) in enumerate(found):
        for mask in target:
            code = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            area, box = int(mask.sum()), [float(v) for v in rle.toBbox(code)]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": 1, "segmentation": code, "area": area}
                | {"bbox": box, "iscrowd": 0}
            )
        for mask, score in zip(preds, scores.tolist(), strict=True):
            code = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            results.append({"image_id": index, "category_id": 1, "segmentation": code, "score": score})
    pictures = [{"id": index, "height": 40, "width": 50} for index in range(len(found))]
    truth = COCO({"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "salient"}]})
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "segm")
    evaluation.params.iouThrs = np.array(thresholds)
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, -1].mean(1)


def measured(found: list[Image], thresholds: list[float], **options) -> list[float]:
    metric = InstanceAveragePrecision(thresholds, **options)
    for image in found[: len(found) // 2]:
        metric.update(*image)
    metric.update(*(list(column) for column in zip(*found[len(found) // 2 :], strict=True)))
    return [metric.compute()[f"ap{100 * t:g}"].item() for t in thresholds]


@pytest.mark.parametrize("seed", range(4))
def test_equals_coco_evaluation(seed: int) -> None:
    found, thresholds = images(60, seed), [0.3, 0.5, 0.7, 0.95]
    expected = coco(found, thresholds)
    assert 0 < expected[1] < 1
    assert measured(found, thresholds) == pytest.approx(expected, abs=1e-9)


def test_only_the_best_detections_of_an_image_count_as_in_coco_evaluation() -> None:
    found, thresholds = images(60, 9), [0.5, 0.7]
    limited = measured(found, thresholds, max_detections=2)
    assert limited == pytest.approx(coco(found, thresholds, 2), abs=1e-9)
    assert limited != pytest.approx(measured(found, thresholds), abs=1e-3)


def test_without_scores_ap_is_precision_times_the_recall_points_reached() -> None:
    target = torch.zeros(4, 8, 8, dtype=torch.bool)
    for index, mask in enumerate(target):
        mask[2 * index : 2 * index + 2] = True
    preds = torch.stack([target[0], target[1], ~target[2]])  # two right, one wrong, two missed: P = 2/3, R = 1/2
    metric = InstanceAveragePrecision()
    metric.update(preds, target)
    assert metric.compute()["ap50"].item() == pytest.approx(2 / 3 * 51 / 101, abs=1e-12)
    shuffled = InstanceAveragePrecision()
    shuffled.update(preds.flip(0), target)
    assert shuffled.compute() == metric.compute()


def test_nothing_to_find_and_nothing_found() -> None:
    nothing, one = torch.zeros(0, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.bool)
    metric = InstanceAveragePrecision()
    metric.update(one, nothing)
    assert metric.compute()["ap50"].isnan()  # there is no recall
    metric.update(nothing, one)
    assert metric.compute()["ap50"] == 0
    metric.update(one, one)
    assert metric.compute()["ap50"].item() == pytest.approx(51 / 101 / 2, abs=1e-12)  # R = 1/2 at P = 1/2


def test_bad_input_is_refused_by_image_and_nothing_is_added() -> None:
    one = torch.ones(1, 4, 4)
    metric = InstanceAveragePrecision()
    for bad, message in [
        ((one * torch.nan, one, torch.ones(1)), r"image 1: preds\[0\].* nan"),
        ((one[:, :3], one, torch.ones(1)), "image 1: .*must share H and W"),
        ((one, one, torch.ones(2)), r"image 1: scores \(2,\) must be one for each of 1 preds"),
        ((one, one, torch.full((1,), 1.5)), r"image 1: scores must lie in \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.update(*([good, wrong] for good, wrong in zip((one, one, torch.ones(1)), bad, strict=True)))
    assert metric.instances == 0
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        InstanceAveragePrecision([0.5, 0])
