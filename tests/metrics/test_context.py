"""The context measure against PySODMetrics, in its precision and in double."""

from __future__ import annotations

import cv2
import numpy as np
import py_sod_metrics.context_measure as theirs
import pytest
import torch

from lightning_sal.metrics import ContextMeasure
from lightning_sal.metrics.functional import context_measure
from tests.metrics.parts import maps

SIZES = [(40, 56), (17, 9), (3, 50), (90, 70)]


def pysod(preds: torch.Tensor, target: torch.Tensor) -> list[float]:
    metric = theirs.ContextMeasure()
    for pred, mask in zip(preds.numpy(), target.numpy(), strict=True):
        metric.step(pred, mask, normalize=False)
    return metric.scores


def in_double(image: np.ndarray, _: int, kernel: np.ndarray) -> np.ndarray:
    """What `cv2.filter2D` gives where it does not round."""
    return _filter(image.astype(np.float64), cv2.CV_64F, kernel)


_filter = cv2.filter2D


@pytest.mark.parametrize("size", SIZES)
def test_equals_pysodmetrics(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = maps(3, *size, seed=size[0])
    found = context_measure(preds, target).tolist()
    assert found == pytest.approx(pysod(preds, target), abs=1e-6)  # it rounds to single precision on the way
    monkeypatch.setattr(theirs.cv2, "filter2D", in_double)
    assert found == pytest.approx(pysod(preds, target), abs=1e-12)


def test_equals_pysodmetrics_where_the_object_is_nothing_or_small_or_straight() -> None:
    target = torch.zeros(4, 12, 15, dtype=torch.bool)
    target[1, 4, 5] = target[2, 6, 2:9] = target[3, :, 14] = True  # nothing, a pixel, a row, a column at the edge
    preds = torch.rand(target.shape, dtype=torch.float64)
    assert context_measure(preds, target).tolist() == pytest.approx(pysod(preds, target), abs=1e-6)


def test_of_a_slanted_line_the_surroundings_are_the_line() -> None:
    """PySODMetrics has no value here, since the covariance has no inverse."""
    line = torch.eye(30)[None]
    shifted = torch.roll(line, 3, 2) * (torch.arange(30) >= 3)
    assert context_measure(line, line).item() > 0.99
    assert context_measure(shifted, line).item() < 1e-6


def test_empty_maps_and_batches() -> None:
    empty = torch.zeros(1, 8, 8)
    assert context_measure(empty, 1 - empty).item() == 0
    assert context_measure(1 - empty, empty).item() == 0
    assert context_measure(1 - empty, 1 - empty).item() == pytest.approx(1)
    assert context_measure(empty[:0], empty[:0]).shape == (0,)


def test_the_metric_is_the_mean_over_images_of_any_size() -> None:
    (first, one), (second, two) = maps(2, 20, 30), maps(1, 11, 40)
    metric = ContextMeasure()
    metric.update([*first, *second], [*one, *two])
    every = [*context_measure(first, one).tolist(), *context_measure(second, two).tolist()]
    assert metric.compute().item() == pytest.approx(sum(every) / 3, abs=1e-14)
