"""The structure-measure against the authors' MATLAB values, PySODMetrics, hand arithmetic and identities."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from py_sod_metrics import Smeasure
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_sal.metrics import MeanAbsoluteError, StructureMeasure
from lightning_sal.metrics.functional import mean_absolute_error, structure_measure
from tests.metrics.parts import SOD, dss, maps, needs_sod


def pysod(preds: Tensor, target: Tensor) -> Tensor:
    reference = Smeasure()
    for pred, mask in zip(preds.double().numpy(), target.numpy(), strict=True):
        reference.step(pred, mask, normalize=False)
    return torch.tensor(np.array(reference.sms), dtype=torch.float64)


@needs_sod
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_matlab_on_every_image(dtype: torch.dtype) -> None:
    rows = {row["name"]: row for row in csv.DictReader((SOD / "reference_metrics.csv").open())}
    images = dss()
    assert len(images) == len(rows) == 60
    for name, pred, mask in images:
        preds, target = torch.from_numpy(pred / 255)[None].to(dtype), torch.from_numpy(mask > 127)[None]
        expected = {key: float(rows[name][key]) for key in ("s_measure", "mae")}
        assert structure_measure(preds, target).item() == pytest.approx(expected["s_measure"], abs=1e-6), name
        assert mean_absolute_error(preds, target).item() == pytest.approx(expected["mae"], abs=1e-6), name


@pytest.mark.parametrize(("height", "width"), [(40, 56), (17, 9), (64, 31), (400, 500)])
def test_equals_pysodmetrics_on_soft_maps(height: int, width: int) -> None:
    preds, target = maps(6, height, width, seed=height)
    torch.testing.assert_close(structure_measure(preds, target), pysod(preds, target), atol=1e-9, rtol=0)
    torch.testing.assert_close(structure_measure(preds > 0.5, target), pysod(preds > 0.5, target).float())


def test_equals_pysodmetrics_with_its_normalisation_where_that_is_neutral() -> None:
    preds, target = maps(4, 30, 42)
    levels = (preds * 255).round().byte()
    levels[:, 0, 0], levels[:, 0, 1] = 0, 255
    reference = Smeasure()
    for pred, mask in zip(levels.numpy(), target.numpy(), strict=True):
        reference.step(pred, mask * np.uint8(255), normalize=True)
    values = structure_measure(levels.double() / 255, target)
    torch.testing.assert_close(values, torch.tensor(np.array(reference.sms)), atol=1e-9, rtol=0)


def test_empty_and_full_ground_truth() -> None:
    preds, _ = maps(2, 12, 15)
    target = torch.stack([torch.zeros(12, 15), torch.ones(12, 15)]).bool()
    means = preds.mean((1, 2))
    torch.testing.assert_close(structure_measure(preds, target), torch.stack([1 - means[0], means[1]]))
    torch.testing.assert_close(structure_measure(preds, target), pysod(preds, target))


def test_quadrants_without_object_score_one_where_the_map_is_constant_and_zero_elsewhere() -> None:
    # 4 x 4, object = the upper left pixel: centroid there, so the quadrants have 1, 3, 3 and 9 pixels. The map is c off
    # the object and 1 on it: S_o = 1/16 * 2/2 + 15/16 * 2 (1-c) / ((1-c)^2 + 1), S_r = 1.
    target = torch.zeros(1, 4, 4, dtype=torch.bool)
    target[0, 0, 0] = True
    for c in (0.0, 0.1, 0.3, 1 / 3):
        preds = torch.full((1, 4, 4), c, dtype=torch.float64).masked_fill(target, 1.0)
        objects = 1 / 16 + 15 / 16 * 2 * (1 - c) / ((1 - c) ** 2 + 1)
        assert structure_measure(preds, target).item() == pytest.approx((objects + 1) / 2, abs=1e-9)
        one_off = preds.clone()
        one_off[0, 3, 3] += 1e-6  # the quadrant of 9 pixels is not constant any more
        assert structure_measure(one_off, target).item() == pytest.approx((objects + 7 / 16) / 2, abs=1e-5)


def test_halves_of_the_centroid_round_up_as_in_matlab() -> None:
    # Column 2 of rows 2 and 3 (counted from 1): row 2.5 becomes 3 in MATLAB, and so in PySODMetrics (1.5 from 0 becomes
    # 2, + 1). One row higher the two differ: 1.5 becomes 2 in MATLAB; 0.5 from 0 becomes 0, + 1 = 1, in PySODMetrics.
    preds = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target = torch.zeros(2, 5, 4, dtype=torch.bool)
    target[0, 1:3, 1] = True
    target[1, 0:2, 1] = True
    values, others = structure_measure(preds, target), pysod(preds, target)
    assert values[0].item() == pytest.approx(others[0].item(), abs=1e-12)
    assert abs(values[1] - others[1]) > 1e-3
    reference = Smeasure()
    x, y = preds[1].numpy(), target[1].numpy()
    cuts = [
        (slice(0, 2), slice(0, 2)),
        (slice(0, 2), slice(2, 4)),
        (slice(2, 5), slice(0, 2)),
        (slice(2, 5), slice(2, 4)),
    ]
    region = sum(reference.ssim(x[cut], y[cut]) * x[cut].size / x.size for cut in cuts)
    assert values[1].item() == pytest.approx((reference.object(x, y) + region) / 2, abs=1e-12)


def test_an_object_whose_centroid_lies_on_the_last_row_and_column_has_a_value() -> None:
    # One pixel in the last corner of 3 x 3: one quadrant holds everything, the others have weight 0. A perfect map: 1;
    # an empty one: S_o = 8/9 * 1, S_r = 0.
    target = torch.zeros(2, 3, 3, dtype=torch.bool)
    target[:, 2, 2] = True
    preds = target.clone()
    preds[1] = False
    torch.testing.assert_close(structure_measure(preds, target), torch.tensor([1.0, 4 / 9]))


def test_never_below_zero() -> None:
    _, target = maps(3, 20, 20)
    assert (structure_measure(~target, target) == 0).all()


def test_perfect_maps_score_one() -> None:
    _, target = maps(5, 23, 31)
    assert (structure_measure(target, target) == 1).all()
    torch.testing.assert_close(structure_measure(target.double(), target), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("value", [True, False])
def test_images_of_one_pixel(value: bool) -> None:
    target = torch.tensor([[[value]]])
    assert structure_measure(target, target).item() == 1
    assert structure_measure(~target, target).item() == 0


def test_batch_equals_one_by_one_whatever_its_size() -> None:
    preds, target = maps(40, 90, 70)  # more pixels than fit the cache, so that the batch is taken in parts
    singles = torch.cat([structure_measure(preds[i : i + 1], target[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(structure_measure(preds, target), singles, atol=1e-12, rtol=0)


def test_transposed_non_contiguous_and_permuted_inputs() -> None:
    preds, target = maps(5, 18, 33)
    values = structure_measure(preds, target)
    assert not preds.mT.is_contiguous()
    torch.testing.assert_close(structure_measure(preds.mT, target.mT), values, atol=1e-12, rtol=0)
    wide = torch.stack([preds, preds], -1).flatten(2)[:, :, ::2]
    torch.testing.assert_close(structure_measure(wide, target), values, atol=1e-12, rtol=0)
    torch.testing.assert_close(structure_measure(preds.flip(0), target.flip(0)), values.flip(0), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]
)
def test_masks_of_any_dtype_score_alike(dtype: torch.dtype) -> None:
    preds, target = maps(4, 25, 19)
    expected = structure_measure(preds > 0.5, target)
    values = structure_measure((preds > 0.5).to(dtype), target.to(dtype))
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(values.float(), expected, atol=1e-7, rtol=0)


def test_half_precision_maps_are_measured_in_full_precision() -> None:
    preds, target = maps(3, 200, 160)
    half = preds.half()
    torch.testing.assert_close(structure_measure(half, target), pysod(half, target).float(), atol=1e-6, rtol=0)


def test_autocast_changes_nothing() -> None:
    preds, target = maps(3, 30, 30)
    with torch.autocast("cpu", torch.bfloat16):
        values = structure_measure(preds.float(), target)
    torch.testing.assert_close(values, structure_measure(preds.float(), target), atol=0, rtol=0)


def test_inputs_are_left_as_they_were_and_may_require_gradients() -> None:
    preds, target = maps(2, 20, 20)
    preds.requires_grad_()
    before = preds.detach().clone()
    assert not structure_measure(preds, target).requires_grad
    assert torch.equal(preds.detach(), before)


def test_no_samples() -> None:
    assert structure_measure(torch.zeros(0, 4, 5), torch.zeros(0, 4, 5, dtype=torch.bool)).shape == (0,)


@pytest.mark.parametrize("score", [structure_measure, mean_absolute_error])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"preds\[1\].* nan .*\[0, 1\]"),
        (1.5, r"preds\[1\].* to 1\.5"),
        (-0.1, r"preds\[1\].* from -0\.1"),
    ],
)
def test_bad_values_are_refused_by_sample(score, value: float, message: str) -> None:
    preds, target = maps(3, 6, 7)
    preds[1, 2, 3] = value
    with pytest.raises(ValueError, match=message) as caught:
        score(preds, target)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"target\[1\]"):
        score(target, preds)


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, 4, 3), "same shape"),
        (torch.zeros(3, 4), torch.zeros(3, 4), r"shape \(B, H, W\)"),
        (torch.zeros(2, 0, 4), torch.zeros(2, 0, 4), "at least one pixel"),
        (torch.full((1, 2, 2), 255, dtype=torch.uint8), torch.ones(1, 2, 2), r"preds\[0\].*divide 8-bit values by 255"),
    ],
)
def test_bad_shapes_and_8_bit_maps_are_refused(preds: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structure_measure(preds, target)


def test_metric_is_the_mean_over_images_of_any_size() -> None:
    small, large = maps(3, 15, 11), maps(2, 30, 20)
    metric = StructureMeasure()
    metric.update(*small)
    metric.update([*large[0], small[0][0]], [*large[1], small[1][0]])
    metric.update([], [])
    values = torch.cat([pysod(*small), pysod(*large), pysod(small[0][:1], small[1][:1])])
    torch.testing.assert_close(metric.compute(), values.mean(), atol=1e-12, rtol=0)
    metric.reset()
    torch.testing.assert_close(metric(*large), pysod(*large).mean(), atol=1e-12, rtol=0)


def test_metric_without_images_is_nan() -> None:
    with pytest.warns(UserWarning, match="compute"):
        assert StructureMeasure().compute().isnan()


def test_metric_refuses_an_image_and_keeps_what_it_had() -> None:
    preds, target = maps(2, 9, 9)
    metric = StructureMeasure()
    metric.update(preds, target)
    before = metric.compute()
    bad = preds[1].clone()
    bad[0, 0] = float("nan")
    with pytest.raises(ValueError, match="image 1: preds"):
        metric.update([preds[0], bad], list(target))
    with pytest.raises(ValueError, match="2 preds and 1 targets"):
        metric.update(list(preds), [target[0]])
    metric._computed = None
    assert metric.compute() == before


def test_a_collection_keeps_structure_and_error_apart_when_they_agree_at_first() -> None:
    both = MetricCollection({"s": StructureMeasure(), "mae": MeanAbsoluteError()})
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    both.update(torch.full((1, 4, 4), 0.5), nothing)  # S = 1 - 0.5, MAE = 0.5
    both.update(nothing, nothing)  # S = 1, MAE = 0
    assert {name: value.item() for name, value in both.compute().items()} == {"s": 0.75, "mae": 0.25}
