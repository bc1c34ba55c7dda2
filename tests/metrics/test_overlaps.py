"""IoU, Dice and their like over thresholds against PySODMetrics, areas under curves against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import py_sod_metrics
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from lightning_sal.formulas.overlaps import areas, overlaps
from lightning_sal.formulas.thresholds import ThresholdCounts
from lightning_sal.metrics import OverlapMeasures
from lightning_sal.metrics.functional import adaptive_overlaps, curve_areas, overlap_curves
from tests.metrics.parts import maps

HANDLERS = {
    "iou": py_sod_metrics.IOUHandler,
    "dice": py_sod_metrics.DICEHandler,
    "ber": py_sod_metrics.BERHandler,
    "specificity": py_sod_metrics.SpecificityHandler,
}


def pysod(preds: Tensor, target: Tensor) -> py_sod_metrics.FmeasureV2:
    metric = py_sod_metrics.FmeasureV2({name: handler(True, True) for name, handler in HANDLERS.items()})
    for pred, mask in zip(preds.numpy(), target.numpy(), strict=True):
        metric.step(pred, mask, normalize=False)
    return metric


@pytest.mark.parametrize(("height", "width"), [(40, 56), (17, 9)])
@pytest.mark.parametrize("levels", [None, 255, 4])
def test_curves_equal_pysodmetrics(height: int, width: int, levels: int | None) -> None:
    preds, target = maps(4, height, width, seed=height)
    preds = preds if levels is None else (preds * levels).round() / levels
    target[0], target[1] = False, True
    theirs = pysod(preds, target)._metric_handlers
    curves, adaptive = overlap_curves(preds, target)._asdict(), adaptive_overlaps(preds, target)._asdict()
    for name, handler in theirs.items():
        expected = torch.from_numpy(np.array(handler.dynamic_results)[:, ::-1].copy())
        torch.testing.assert_close(curves[name], expected, atol=1e-12, rtol=0, msg=name)
        assert adaptive[name].tolist() == pytest.approx([float(value) for value in handler.adaptive_results], abs=1e-12)


def test_the_metric_takes_best_and_mean_of_the_averaged_curve() -> None:
    preds, target = maps(5, 30, 41)
    metric, areas_of_images = OverlapMeasures(), curve_areas(preds, target)
    metric.update(preds[:2], target[:2])
    metric.update(list(preds[2:]), list(target[2:]))
    found = {name: value.item() for name, value in metric.compute().items()}
    theirs = pysod(preds, target).get_results()
    expected = {f"{name}_mean": theirs[name]["dynamic"].mean() for name in HANDLERS}
    expected |= {f"{name}_adaptive": theirs[name]["adaptive"] for name in HANDLERS}
    expected |= {f"{name}_max": theirs[name]["dynamic"].max() for name in ("iou", "dice", "specificity")}
    expected |= {"ber_min": theirs["ber"]["dynamic"].min()}
    expected |= {name: value.mean().item() for name, value in areas_of_images._asdict().items()}
    assert found == pytest.approx(expected, abs=1e-12)
    assert metric.curves()["dice"].numpy() == pytest.approx(theirs["dice"]["dynamic"][::-1], abs=1e-12)


def test_areas_equal_scikit_learn() -> None:
    preds, target = maps(6, 25, 30, seed=3)
    found = curve_areas(preds, target)
    for index, (pred, mask) in enumerate(zip(preds, target, strict=True)):
        levels, truth = (pred * 255).int().flatten().numpy(), mask.flatten().numpy()
        assert found.auc_roc[index].item() == pytest.approx(roc_auc_score(truth, levels), abs=1e-12)
        assert found.auc_pr[index].item() == pytest.approx(average_precision_score(truth, levels), abs=1e-12)


def test_areas_where_there_is_nothing_to_tell_apart() -> None:
    preds = torch.rand(1, 6, 7, dtype=torch.float64)
    empty, full = torch.zeros(1, 6, 7), torch.ones(1, 6, 7)
    assert [value.item() for value in curve_areas(preds, empty)] == [0, 0.5]
    assert [value.item() for value in curve_areas(preds, full)] == pytest.approx([1, 0.5])
    assert [value.item() for value in curve_areas(full, full)] == [1, 0.5]


def test_a_perfect_map_and_its_opposite() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :3] = 1
    perfect, opposite = OverlapMeasures(), OverlapMeasures()
    perfect.update(mask, mask)
    opposite.update(1 - mask, mask)
    best, worst = perfect.compute(), opposite.compute()
    assert [best[name].item() for name in ("iou_max", "dice_max", "ber_min", "auc_pr", "auc_roc")] == [1, 1, 0, 1, 1]
    assert [worst[name].item() for name in ("iou_adaptive", "dice_adaptive", "ber_adaptive", "auc_roc")] == [0, 0, 1, 0]
    assert worst["iou_max"].item() == pytest.approx(24 / 64)  # all is predicted at threshold 0


def test_formulas_give_arrays_what_they_give_tensors() -> None:
    counts = ThresholdCounts(
        np.array([[4.0, 2.0, 0.0]]), np.array([[6.0, 1.0, 0.0]]), np.array([4.0]), np.array([10.0])
    )
    tensors = ThresholdCounts(*map(torch.from_numpy, counts))
    for function in (overlaps, areas):
        for array, tensor in zip(function(counts), function(tensors), strict=True):
            assert isinstance(array, np.ndarray)
            assert array.tolist() == tensor.tolist()
    assert overlaps(counts).iou.tolist() == [[0.4, 0.4, 0.0]]
    assert overlaps(counts).ber.tolist() == pytest.approx(np.array([[0.5, 1 - (0.5 + 5 / 6) / 2, 0.5]]))
    # Precision 4/10 and 2/3 at recall 1 and 1/2; ROC by (1, 1), (1/6, 1/2), (0, 0)
    assert areas(counts).auc_pr.tolist() == pytest.approx([0.5 * 0.4 + 0.5 * 2 / 3])
    assert areas(counts).auc_roc.tolist() == pytest.approx([5 / 6 * 0.75 + 1 / 6 * 0.25])
