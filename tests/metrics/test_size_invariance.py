"""Size-invariant MAE and F against PySODMetrics and hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from py_sod_metrics import FmeasureHandler, SizeInvarianceFmeasureV2, SizeInvarianceMAE
from scipy.ndimage import gaussian_filter

from lightning_sal.metrics import SizeInvariantMeasures
from lightning_sal.metrics.functional import f_measure_curves, mean_absolute_error, size_invariant_measures


def scene(seed: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of several objects, large and small, of which no boxes cover the corner, and a map, (1, H, W)."""
    draw = np.random.default_rng(seed)
    mask = gaussian_filter(draw.normal(size=size), draw.choice([1, 2, 4])) > 0.05
    mask[:2] = mask[:, :2] = False
    pred = gaussian_filter(mask.astype(float), 1) + draw.choice([0.3, 2]) * gaussian_filter(draw.normal(size=size), 2)
    levels = np.round(255 * np.clip(pred, 0, 1)) / 255
    return torch.from_numpy(levels)[None], torch.from_numpy(mask)[None]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [(60, 80), (12, 15)])
def test_equal_pysodmetrics(seed: int, size: tuple[int, int]) -> None:
    preds, target = scene(seed, size)
    mae, f_measure = SizeInvarianceMAE(), SizeInvarianceFmeasureV2({"f": FmeasureHandler(True, True, beta=0.3)})
    for metric in (mae, f_measure):
        metric.step(preds[0].numpy(), target[0].numpy(), normalize=False)
    theirs = f_measure.get_results()["f"]
    (curves,) = theirs["dynamic"]  # an object each
    expected = [mae.maes[0], curves.max(1).mean(), curves.mean(), theirs["adaptive"]]
    found = [value.item() for value in size_invariant_measures(preds, target)]
    assert found == pytest.approx([float(value) for value in expected], abs=1e-12)


def test_objects_count_alike_whatever_their_size() -> None:
    target = torch.zeros(1, 100, 100, dtype=torch.float64)
    target[:, 5:65, 5:65] = target[:, 80:90, 80:90] = 1
    large, small = target.clone(), target.clone()
    large[:, 80:] = 0
    small[:, :70] = 0
    of_large, of_small = (size_invariant_measures(preds, target) for preds in (large, small))
    alpha = (10_000 - 3700) / 3700
    assert of_large.si_mae.item() == of_small.si_mae.item() == pytest.approx(1 / (2 + alpha))
    missed = [1.3 * p / (0.3 * p + 1) for p in (0.01, 0.36)]  # all is predicted at threshold 0
    assert of_large.si_f_max.item() == pytest.approx((1 + missed[0]) / 2)
    assert of_small.si_f_max.item() == pytest.approx((1 + missed[1]) / 2)


def test_specks_count_where_nothing_else_is_there() -> None:
    target = torch.zeros(1, 40, 40)
    target[:, 2:4, 2:4] = target[:, 20:22, 20:22] = target[:, 30, 30] = 1
    preds = target.clone()
    preds[:, 20:22, 20:22] = 0
    f_max = size_invariant_measures(preds, target).si_f_max.item()
    chance = 1.3 * (4 / 1600) / (0.3 * 4 / 1600 + 1)
    assert f_max == pytest.approx((1 + chance) / 2)  # of the two largest; the pixel is left out
    target[:, 5:15, 25:35] = 1
    preds[:, 5:15, 25:35] = 1
    assert size_invariant_measures(preds, target).si_f_max.item() == 1  # beside an object no speck counts


@pytest.mark.parametrize("full", [False, True])
def test_an_image_of_nothing_or_of_one_object_everywhere_is_measured_as_a_whole(full: bool) -> None:
    preds = torch.rand(1, 30, 20, dtype=torch.float64)
    target = torch.full((1, 30, 20), full)
    found = size_invariant_measures(preds, target)
    curve = f_measure_curves(preds, target).f_measure
    assert found.si_mae.item() == pytest.approx(mean_absolute_error(preds, target).item(), abs=1e-12)
    assert found.si_f_max.item() == pytest.approx(curve.max().item(), abs=1e-12)
    assert found.si_f_mean.item() == pytest.approx(curve.mean().item(), abs=1e-12)


def test_the_metric_is_the_mean_over_images() -> None:
    pairs = [scene(seed, (30 + seed, 40)) for seed in range(3)]
    metric = SizeInvariantMeasures()
    metric.update([preds[0] for preds, _ in pairs], [target[0] for _, target in pairs])
    every = torch.stack([torch.cat(size_invariant_measures(*pair)) for pair in pairs])
    assert [value.item() for value in metric.compute().values()] == pytest.approx(every.mean(0).tolist(), abs=1e-14)


def test_many_objects_are_each_counted() -> None:
    """More than 53, which PySODMetrics' numbers of objects in one float cannot hold."""
    target = torch.zeros(1, 100, 100)
    target[:, 1::10, 1::10] = 1  # 100 pixels, all the largest
    preds = target.clone()
    preds[:, 1, :52] = 0  # six of them are missed
    preds[:, 11, :] = 0  # and ten
    chance = 1.3 * 1e-4 / (0.3 * 1e-4 + 1)
    assert size_invariant_measures(preds, target).si_f_max.item() == pytest.approx((84 + 16 * chance) / 100, abs=1e-6)
