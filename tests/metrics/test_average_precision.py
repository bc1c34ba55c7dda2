"""Average precision against COCO evaluation (faster-coco-eval), hand arithmetic and identities."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from torch import Tensor

from lightning_sal.metrics import InstanceAveragePrecision
from lightning_sal.metrics.functional import average_precision, match_instances, run_length_iou

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


def encoded(mask: Tensor) -> dict:
    """A mask (H, W) as run lengths, by faster-coco-eval."""
    return rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def crowded(found: list[Image], seed: int) -> list[Tensor]:
    """Which of the true are crowds: about a third."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(len(target), generator=draw) < 0.35 for _, target, _ in found]


def near_0(scores: Tensor) -> Tensor:
    """Scores in the same order, most of them far below 1e-5."""
    return scores.double() ** 8 * 1e-5


def near_1(scores: Tensor) -> Tensor:
    """Scores in the same order in [.99999, 1]."""
    return 1 - (1 - scores.double()) * 1e-5


def coco(
    found: list[Image], thresholds: list[float], max_detections: int = 100, crowds: list[Tensor] | None = None
) -> np.ndarray:
    """AP of COCO evaluation at each threshold."""
    annotations, results = [], []
    for index, (preds, target, scores) in enumerate(found):
        for number, mask in enumerate(target):
            code = encoded(mask)
            area, box = int(mask.sum()), [float(v) for v in rle.toBbox(code)]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": 1, "segmentation": code, "area": area}
                | {"bbox": box, "iscrowd": int(crowds[index][number]) if crowds else 0}
            )
        for mask, score in zip(preds, scores.tolist(), strict=True):
            results.append({"image_id": index, "category_id": 1, "segmentation": encoded(mask), "score": score})
    sizes = [preds.shape[1:] for preds, *_ in found]
    pictures = [{"id": index, "height": height, "width": width} for index, (height, width) in enumerate(sizes)]
    truth = COCO({"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "salient"}]})
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "segm")
    evaluation.params.iouThrs = np.array(thresholds)
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, -1].mean(1)


def measured(
    found: list[Image], thresholds: list[float], crowds: list[Tensor] | None = None, runs: bool = False, **options
) -> list[float]:
    """Our AP at each threshold: some images one by one, the rest in one call, as masks or as run lengths."""
    metric = InstanceAveragePrecision(thresholds, **options)
    columns = [list(column) for column in zip(*found, strict=True)] + ([crowds] if crowds else [])
    if runs:
        columns[:2] = ([[encoded(mask) for mask in masks] for masks in column] for column in columns[:2])
    half = len(found) // 2
    for image in zip(*(column[:half] for column in columns), strict=True):
        metric.update(*([each] for each in image))
    metric.update(*(column[half:] for column in columns))
    return [metric.compute()[f"ap{100 * t:g}"].item() for t in thresholds]


@pytest.mark.parametrize("seed", range(4))
def test_equals_coco_evaluation(seed: int) -> None:
    found, thresholds = images(60, seed), [0.3, 0.5, 0.7, 0.95]
    expected = coco(found, thresholds)
    assert 0 < expected[1] < 1
    assert measured(found, thresholds) == pytest.approx(expected, abs=1e-12)
    assert measured(found, thresholds, runs=True) == measured(found, thresholds)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("bunched", [near_0, near_1])
def test_equals_coco_evaluation_where_scores_bunch_and_beside_crowds(
    seed: int, crowd: bool, bunched: Callable[[Tensor], Tensor]
) -> None:
    found = [(preds, target, bunched(scores)) for preds, target, scores in images(60, seed)]
    thresholds = [0.3, 0.5, 0.7, 0.95]
    crowds = crowded(found, seed) if crowd else None
    expected = coco(found, thresholds, crowds=crowds)
    assert 0 < expected[1] < 1
    assert measured(found, thresholds, crowds) == pytest.approx(expected, abs=1e-12)
    assert measured(found, thresholds, crowds, runs=True) == pytest.approx(expected, abs=1e-12)
    order = np.random.default_rng(seed).permutation(len(found))
    shuffled = [found[n] for n in order], thresholds, [crowds[n] for n in order] if crowds else None
    assert measured(*shuffled) == measured(found, thresholds, crowds)


def test_equals_coco_evaluation_where_a_recall_is_a_point_of_the_curve() -> None:
    """100 instances, so that each recall is one of the 101 points, up to how these are rounded."""
    found = [images(80, 5)[n] for n in range(80)]
    true = torch.cat([target for _, target, _ in found])[:100]
    preds = torch.where(torch.rand(100, 1, 1, generator=torch.Generator().manual_seed(0)) > 0.3, true, ~true)
    found = [(p[None], t[None], torch.tensor([1 - n / 200])) for n, (p, t) in enumerate(zip(preds, true, strict=True))]
    assert measured(found, [0.5]) == pytest.approx(coco(found, [0.5]), abs=1e-12)


def test_the_names_tell_coco_s_mean_from_that_of_the_thresholds_asked_for() -> None:
    found = images(60, 2)
    metric = InstanceAveragePrecision()
    metric.update(*(list(column) for column in zip(*found, strict=True)))
    values = metric.compute()
    assert list(values) == ["ap", "ap50", "ap70", "ap_50_70"]
    assert values["ap_50_70"].item() == pytest.approx((values["ap50"] + values["ap70"]).item() / 2, abs=1e-12)
    field = coco(found, np.linspace(0.5, 0.95, 10).tolist())
    assert values["ap"].item() == pytest.approx(field.mean(), abs=1e-12)
    assert values["ap50"].item() == pytest.approx(field[0], abs=1e-12)
    one = InstanceAveragePrecision([0.6])
    one.update(*(list(column) for column in zip(*found, strict=True)))
    assert list(one.compute()) == ["ap", "ap60"]


def test_a_crowd_by_hand() -> None:
    """A crowd over the left half, one instance at the right: what lies in the crowd is neither right nor wrong."""
    target = torch.zeros(2, 4, 8, dtype=torch.bool)
    target[0, :, :4], target[1, :, 6:] = True, True
    preds = torch.zeros(5, 4, 8, dtype=torch.bool)
    preds[0, :, :2] = True  # in the crowd; over its own area, where IoU would be 1/2
    preds[1, :, 2:4] = True  # likewise: a crowd takes several
    preds[2, :, 3:6] = True  # a third of it in the crowd
    preds[3, :, 6:] = True  # the instance
    crowd = torch.tensor([True, False])
    iou = torch.tensor([[1, 0], [1, 0], [1 / 3, 0], [0, 1], [0, 0]], dtype=torch.float64)
    for given in (preds, target), ([[encoded(m) for m in preds]], [[encoded(m) for m in target]]):
        metric = InstanceAveragePrecision([0.3, 0.5])
        scores, flags = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), crowd
        metric.update(*given, *((scores, flags) if isinstance(given[0], Tensor) else ([scores], [flags])))
        values = metric.compute()
        assert metric.instances == 1
        assert values["ap30"] == 1  # the third is ignored too
        assert values["ap50"] == 0.5  # the third is a false alarm before the instance
    outcomes = match_instances(iou, scores, torch.tensor([0.3, 0.5]), crowd)
    assert outcomes.tolist() == [[2, 2, 2, 1, 0], [2, 2, 0, 1, 0]]
    only = InstanceAveragePrecision()
    only.update(preds, target[:1], crowd=crowd[:1])
    assert only.compute()["ap50"].isnan()  # a crowd is no instance


def test_ties_by_hand() -> None:
    """Two right and two wrong share a score behind one that is right: P = 1 at R = 1/3, then 3/5 at R = 1."""
    outcomes = torch.tensor([[0, 1, 1, 0, 1]], dtype=torch.uint8)
    scores = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.7])
    expected = (34 * 1 + 67 * 3 / 5) / 101
    for order in (torch.arange(5), torch.tensor([4, 1, 2, 0, 3]), torch.tensor([0, 3, 1, 2, 4])):
        value = average_precision(scores[order], outcomes[:, order], torch.tensor(3))
        assert value.item() == pytest.approx(expected, abs=1e-12)
    more = np.nextafter(0.2, 1)
    apart = torch.tensor([0.2, more, more, 0.2, 0.7], dtype=torch.float64)  # by one step: all that is right comes first
    assert average_precision(apart, outcomes, torch.tensor(3)) == 1


def test_scores_are_any_finite_numbers() -> None:
    found = images(20, 4)
    expected = measured(found, [0.5])
    for change in (lambda s: s - 5, lambda s: s * 1e300, lambda s: -1e-300 / s, lambda s: s.log()):
        assert measured([(p, t, change(s.double())) for p, t, s in found], [0.5]) == expected
    one = torch.ones(1, 4, 4)
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ValueError, match=r"image 1: scores\[0\] is -?(nan|inf): scores must be finite"):
            InstanceAveragePrecision().update([one, one], [one, one], [torch.ones(1), torch.tensor([bad])])


def test_only_the_best_detections_of_an_image_count_as_in_coco_evaluation() -> None:
    found, thresholds = images(60, 9), [0.5, 0.7]
    limited = measured(found, thresholds, max_detections=2)
    assert limited == pytest.approx(coco(found, thresholds, 2), abs=1e-12)
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
        ((one, one, torch.ones(1), torch.ones(2) > 0), r"image 1: crowd \(2,\).*for each of 1 targets"),
        ((one, one, torch.ones(1), torch.ones(1)), r"image 1: crowd .*float32, must be a bool"),
        ((one, [encoded(one[0])], torch.ones(1)), "image 1: preds and target must both be masks, or both run lengths"),
    ]:
        good = (one, one, torch.ones(1), torch.zeros(1) > 0)
        with pytest.raises(ValueError, match=message):
            metric.update(*([right, wrong] for right, wrong in zip(good, bad, strict=False)))
    assert metric.instances == 0
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        InstanceAveragePrecision([0.5, 0])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (13, 21)])
@pytest.mark.parametrize(("count", "other"), [(7, 4), (0, 2), (2, 0), (0, 0)])
def test_run_lengths_overlap_as_masks_do(size: tuple[int, int], count: int, other: int) -> None:
    draw = torch.Generator().manual_seed(0)
    levels = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.1])
    preds, target = (
        torch.rand(n, *size, generator=draw) < levels[torch.arange(n) % 5, None, None] for n in (count, other)
    )
    crowd = torch.arange(other) % 2 == 1
    ours, theirs = ([encoded(mask) for mask in masks] for masks in (preds, target))
    counts = [mask.T.flatten().int().tolist() for mask in preds]
    for n, (code, pixels) in enumerate(zip(ours, counts, strict=True)):  # as a list, with runs of length 0 between
        code |= {"counts": [run for pixel in pixels for run in (1 - pixel, pixel)]} if n % 3 == 1 else {}
    expected = torch.zeros(count, other, dtype=torch.float64)
    for m, pred in enumerate(preds):
        for i, truth in enumerate(target):
            whole = int(pred.sum() if crowd[i] else (pred | truth).sum())
            expected[m, i] = int((pred & truth).sum()) / whole if whole else 0
    assert torch.equal(run_length_iou(ours, theirs, crowd), expected)
    if not any(crowd):
        assert torch.equal(run_length_iou(ours, theirs), expected)


def test_run_lengths_that_are_none_are_named() -> None:
    good = {"size": [2, 3], "counts": [0, 4, 2]}
    for bad, message in [
        ({"size": [2, 3], "counts": [1, 4, 2]}, r"target\[1\]: run lengths that are not as many pixels as their size"),
        ({"size": [2, 3], "counts": [-1, 5, 2]}, r"target\[1\]: run lengths that are not"),
        ({"size": [2, 3], "counts": ""}, r"target\[1\]: run lengths that are cut off"),
        ({"size": [2, 3], "counts": "04R"}, r"target\[1\]: run lengths that are cut off"),
        ({"size": [2, 3], "counts": "\x7f"}, r"target\[1\]: run lengths with characters"),
        ({"size": [2, 3], "counts": []}, r"target\[1\]: run lengths that are no list of whole numbers"),
        ({"size": [2, 3], "counts": [0, 4.5, 1.5]}, r"target\[1\]: run lengths that are no list of whole numbers"),
        ({"size": [2, 3]}, r"target\[1\]: no run lengths with `size` \[H, W\] and `counts`"),
        ({"size": 6, "counts": [0, 4, 2]}, r"target\[1\]: no run lengths with `size`"),
        ([[0, 0, 1, 0, 1, 1]], r"target\[1\]: no run lengths with `size`"),
        ({"size": [3, 2], "counts": [0, 4, 2]}, "preds and target must share H and W"),
    ]:
        with pytest.raises(ValueError, match=message):
            run_length_iou([good], [good, bad])
        metric = InstanceAveragePrecision()
        with pytest.raises(ValueError, match=f"image 1: {message}"):
            metric.update([[good], [good]], [[good], [good, bad]])
        assert metric.instances == 0


def test_a_metric_is_merged_copied_pickled_reset_and_called_as_others_are() -> None:
    found = images(12, 7)
    columns = [list(column) for column in zip(*found, strict=True)]
    whole, first, second, called = (InstanceAveragePrecision() for _ in range(4))
    whole.update(*columns)
    expected = whole.compute()
    first.update(*(column[:5] for column in columns))
    second.update(*(column[5:] for column in columns))
    alone = deepcopy(second).compute()
    first.merge_state(second)
    assert first.compute() == expected == pickle.loads(pickle.dumps(first)).compute()
    called.update(*(column[:5] for column in columns))
    assert called(*(column[5:] for column in columns)) == alone
    assert called.compute() == expected
    called.reset()
    called.update(*(column[5:] for column in columns))
    assert called.compute() == alone
    called.reset()
    called.update([], [], [])
    assert all(value.isnan() for value in called.compute().values())


def test_a_detection_takes_18_bytes_and_one_for_a_threshold_that_coco_lacks() -> None:
    found = images(30, 8)
    for thresholds, size in ((0.5, 0.7), 18), ((0.5, 0.42), 19):
        metric = InstanceAveragePrecision(thresholds)
        metric.update(*(list(column) for column in zip(*found, strict=True)))
        held = sum(part.nbytes for state in (metric.scores, metric.outcomes) for part in state)
        assert held == size * sum(len(preds) for preds, *_ in found)
