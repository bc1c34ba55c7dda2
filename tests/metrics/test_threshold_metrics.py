"""E, F, weighted F and the suite against PySODMetrics, hand arithmetic and each other."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import py_sod_metrics
import pytest
import torch
from torch import Tensor

from lightning_sal.metrics import (
    EnhancedAlignmentMeasure,
    FMeasure,
    MeanAbsoluteError,
    SaliencySuite,
    StructureMeasure,
    WeightedFMeasure,
)
from lightning_sal.metrics.functional import (
    adaptive_enhanced_alignment,
    adaptive_f_measure,
    enhanced_alignment_curve,
    f_measure_curves,
    weighted_f_measure,
)
from tests.metrics.parts import dss, maps, needs_sod


def pysod(images: Iterable[tuple[np.ndarray, np.ndarray]], normalize: bool) -> dict[str, np.ndarray]:
    """PySODMetrics' values of each image: curves (N, 256), the others (N,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its Fmeasure says that a newer class will take its place
        f = py_sod_metrics.Fmeasure()
    e, weighted = py_sod_metrics.Emeasure(), py_sod_metrics.WeightedFmeasure()
    for pred, mask in images:
        for reference in (e, f, weighted):
            reference.step(pred, mask, normalize=normalize)
    curves = {  # theirs start at the highest threshold
        "e": e.changeable_ems,
        "precision": f.precisions,
        "recall": f.recalls,
        "f_measure": f.changeable_fms,
    }
    return {name: np.array(values)[:, ::-1].copy() for name, values in curves.items()} | {
        "e_adaptive": np.array(e.adaptive_ems),
        "f_adaptive": np.array(f.adaptive_fms),
        "weighted_f": np.array(weighted.weighted_fms),
    }


def ours(preds: Tensor, target: Tensor) -> dict[str, Tensor]:
    return {
        "e": enhanced_alignment_curve(preds, target),
        "e_adaptive": adaptive_enhanced_alignment(preds, target),
        **f_measure_curves(preds, target)._asdict(),
        "f_adaptive": adaptive_f_measure(preds, target),
        "weighted_f": weighted_f_measure(preds, target),
    }


@pytest.mark.parametrize(("height", "width"), [(40, 56), (17, 9), (200, 301)])
@pytest.mark.parametrize("levels", [None, 255, 4])
def test_equal_pysodmetrics_on_soft_maps(height: int, width: int, levels: int | None) -> None:
    preds, target = maps(5, height, width, seed=height)
    if levels is not None:  # values that lie on thresholds, as those of 8-bit files do
        preds = (preds * levels).round() / levels
    expected = pysod(zip(preds.numpy(), target.numpy(), strict=True), normalize=False)
    for name, values in ours(preds, target).items():
        torch.testing.assert_close(values, torch.from_numpy(expected[name]), atol=1e-9, rtol=0, msg=name)


def test_float32_maps_give_what_their_float64_copies_give() -> None:
    preds, target = maps(4, 31, 42)
    exact = ours(preds.float().double(), target)
    for name, values in ours(preds.float(), target).items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), exact[name], atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("full", [False, True])
def test_empty_and_full_ground_truth(full: bool) -> None:
    preds, _ = maps(3, 20, 25)
    target = torch.full((3, 20, 25), full)
    expected = pysod(zip(preds.numpy(), target.numpy(), strict=True), normalize=False)
    for name, values in ours(preds, target).items():
        torch.testing.assert_close(values, torch.from_numpy(expected[name]).double(), atol=1e-9, rtol=0, msg=name)


@needs_sod
@pytest.mark.parametrize("normalize", [False, True])
def test_equal_pysodmetrics_on_published_maps(normalize: bool) -> None:
    images = [(pred, mask) for _, pred, mask in dss()]
    preds, target = [torch.from_numpy(p / 255) for p, _ in images], [torch.from_numpy(m > 128) for _, m in images]
    given = images if normalize else [(p.numpy(), m.numpy()) for p, m in zip(preds, target, strict=True)]
    expected = pysod(given, normalize)
    suite = SaliencySuite(weighted_f=True, normalize=normalize)
    suite.update(preds, target)
    values = suite.compute()
    for letter, curve in {"e": "e", "f": "f_measure"}.items():
        mean = expected[curve].mean(0)
        assert values[f"{letter}_max"].item() == pytest.approx(mean.max(), abs=1e-5)
        assert values[f"{letter}_mean"].item() == pytest.approx(mean.mean(), abs=1e-5)
        assert values[f"{letter}_adaptive"].item() == pytest.approx(expected[f"{letter}_adaptive"].mean(), abs=1e-5)
    each = suite.image_values(preds, target)
    np.testing.assert_allclose(each["weighted_f"].numpy(), expected["weighted_f"], atol=1e-5)
    np.testing.assert_allclose(each["e_adaptive"].numpy(), expected["e_adaptive"], atol=1e-5)
    np.testing.assert_allclose(each["f_max"].numpy(), expected["f_measure"].max(1), atol=1e-5)


def test_the_suite_says_what_its_members_say() -> None:
    preds, target = maps(3, 24, 30)
    others = maps(2, 13, 50, seed=4)
    suite = SaliencySuite(weighted_f=True)
    members = [StructureMeasure(), MeanAbsoluteError(), EnhancedAlignmentMeasure(), FMeasure(), WeightedFMeasure()]
    for metric in (suite, *members):
        metric.update(preds, target)
        metric.update([*others[0], preds[0].float()], [*others[1], target[0]])
        metric.update([], [])
    s, mae, e, f, weighted = (metric.compute() for metric in members)
    expected = {"s_measure": s, "mae": mae, **e, **f, "weighted_f": weighted}
    found = suite.compute()
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-12, rtol=0, msg=name)


def test_both_conventions_of_the_maximum() -> None:
    # Above threshold 0 one image has P = R = 1, the other P = 1/2 and R = 1; the F of the means is not the mean of the F.
    target = torch.tensor([[[1, 0]], [[1, 0]]])
    preds = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    mean_f = (1 + 1.3 * 0.5 / (0.3 * 0.5 + 1)) / 2
    of_means = 1.3 * 0.75 / (0.3 * 0.75 + 1)
    for maximum, expected in {"curve": mean_f, "precision_recall": of_means}.items():
        metric = FMeasure(maximum=maximum)  # type: ignore[arg-type]
        metric.update(preds, target)
        assert metric.compute()["f_max"].item() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="'curve' or 'precision_recall', not 'best'"):
        FMeasure(maximum="best")  # type: ignore[arg-type]


def test_curves_and_their_picture() -> None:
    metric = FMeasure()
    metric.update(*maps(3, 24, 30))
    curves = metric.curves()
    assert list(curves) == ["threshold", "precision", "recall", "f_measure"]
    assert all(curve.shape == (256,) for curve in curves.values())
    assert (curves["recall"].diff() <= 0).all()
    assert curves["recall"][0] == 1
    figure, (left, right) = metric.plot_curves()
    np.testing.assert_allclose(left.lines[0].get_xydata()[:, 1], curves["precision"].numpy())
    np.testing.assert_allclose(right.lines[0].get_xydata()[:, 1], curves["f_measure"].numpy())
    metric.plot()
    figure.clear()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [0, 1])
def test_small_and_constant_maps_of_any_dtype_give_finite_values(size: tuple[int, int], dtype, value: int) -> None:
    preds = torch.full((2, *size), value).to(dtype)
    suite = SaliencySuite(weighted_f=True)
    each = suite.image_values(preds, preds)
    assert all(values.isfinite().all() for values in each.values())
    assert each["s_measure"].tolist() == [1, 1]
    assert each["mae"].tolist() == [0, 0]
    opposite = suite.image_values(preds, torch.full((2, *size), 1 - value))
    assert opposite["mae"].tolist() == [1, 1]
    assert opposite["s_measure"].tolist() == [0, 0]


def test_views_give_what_their_copies_give() -> None:
    preds, target = maps(2, 60, 80)
    across = ours(preds[:, ::3, ::2], target[:, ::3, ::2])
    for name, values in ours(preds[:, ::3, ::2].contiguous(), target[:, ::3, ::2].contiguous()).items():
        assert torch.equal(values, across[name]), name


@pytest.mark.parametrize("metric", [EnhancedAlignmentMeasure, FMeasure, WeightedFMeasure, SaliencySuite])
def test_bad_maps_are_refused_by_sample_and_nothing_is_added(metric) -> None:
    preds, target = maps(3, 6, 7)
    preds[1, 2, 3] = float("nan")
    measure = metric()
    with pytest.raises(ValueError, match=r"preds\[1\].* nan"):
        measure.update(preds, target)
    with pytest.raises(ValueError, match=r"image 1: preds\[0\].* nan"):
        measure.update(list(preds), list(target))
    with pytest.raises(ValueError, match="same shape"):
        measure.update(preds, target[:, :5])
    assert measure.total == 0
