"""The mean absolute error against PySODMetrics and hand arithmetic; MATLAB values are in test_structure.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from py_sod_metrics import MAE

from lightning_sal.metrics import MeanAbsoluteError
from lightning_sal.metrics.functional import mean_absolute_error


def test_equals_pysodmetrics() -> None:
    draw = torch.Generator().manual_seed(0)
    preds = torch.rand(5, 40, 30, generator=draw, dtype=torch.float64)
    target = torch.rand(5, 40, 30, generator=draw) > 0.6
    reference = MAE()
    for pred, mask in zip(preds.numpy(), target.numpy(), strict=True):
        reference.step(pred, mask, normalize=False)
    expected = torch.tensor(np.array(reference.maes))
    torch.testing.assert_close(mean_absolute_error(preds, target), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(mean_absolute_error(preds.float(), target), expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_masks_of_any_dtype(dtype: torch.dtype) -> None:
    preds = torch.tensor([[[1, 0, 1, 0]], [[1, 1, 1, 1]]]).to(dtype)
    target = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]]]).to(dtype)
    assert mean_absolute_error(preds, target).tolist() == [0.5, 0.0]


def test_metric_counts_each_image_alike_whatever_its_size() -> None:
    metric = MeanAbsoluteError()
    metric.update([torch.full((1, 1), 0.5), torch.zeros(10, 20)], [torch.ones(1, 1), torch.zeros(10, 20)])
    metric.update(torch.full((2, 3, 3), 0.25), torch.zeros(2, 3, 3))
    assert metric.compute().item() == pytest.approx((0.5 + 0.0 + 0.25 + 0.25) / 4, abs=1e-15)


def test_metric_is_lower_for_better_and_differentiable() -> None:
    assert MeanAbsoluteError.higher_is_better is False
    preds = torch.full((1, 2, 2), 0.5, requires_grad=True)
    mean_absolute_error(preds, torch.zeros(1, 2, 2)).sum().backward()
    assert preds.grad is not None
    assert preds.grad.flatten().tolist() == [0.25] * 4
