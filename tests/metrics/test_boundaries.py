"""Boundary IoU against the form of the authors' code on OpenCV, multi-scale IoU against PySODMetrics."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from py_sod_metrics import MSIoU

from lightning_sal.formulas.boundaries import inner_boundary
from lightning_sal.metrics import BoundaryIoU, MultiScaleIoU
from lightning_sal.metrics.functional import boundary_iou, multi_scale_iou
from tests.metrics.parts import maps

SIZES = [(40, 56), (17, 9), (3, 50), (200, 301)]


def eroded_away(mask: np.ndarray, steps: int) -> np.ndarray:
    """The boundary by repeated erosion with 3 x 3 pixels, zeros around the image (Cheng et al. 2021)."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    core = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
    return mask & (core == 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [0.02, 0.1])
def test_boundary_iou_equals_the_authors_form(size: tuple[int, int], ratio: float) -> None:
    preds, target = maps(3, *size, seed=size[1])
    steps = max(1, round(ratio * float(np.hypot(*size))))
    found = boundary_iou(preds, target, ratio)
    for index, (pred, mask) in enumerate(zip((preds > 0.5).numpy(), target.numpy(), strict=True)):
        ours, theirs = eroded_away(pred, steps), eroded_away(mask, steps)
        assert (inner_boundary(mask, steps) == theirs).all()
        union = (ours | theirs).sum()
        expected = (ours & theirs).sum() / union if union else 1
        assert found[index].item() == pytest.approx(expected, abs=1e-12)


def test_boundary_iou_of_masks_that_are_empty_or_full() -> None:
    empty, full = torch.zeros(1, 20, 30), torch.ones(1, 20, 30)
    assert boundary_iou(torch.cat([empty, full, full]), torch.cat([empty, full, empty])).tolist() == [1, 1, 0]


def test_boundary_iou_sees_what_iou_forgives() -> None:
    target = torch.zeros(1, 200, 200)
    target[:, 20:180, 20:180] = 1
    preds = torch.zeros_like(target)
    preds[:, 26:174, 26:174] = 1  # 6 pixels short all around: IoU 0.86, and the boundaries of 6 pixels share none
    assert boundary_iou(preds, target).item() == 0


@pytest.mark.parametrize("ratio", [0, -0.1, float("nan")])
def test_a_boundary_without_width_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="dilation_ratio must be > 0"):
        BoundaryIoU(ratio)


@pytest.mark.parametrize("size", SIZES)
def test_multi_scale_iou_equals_pysodmetrics(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = maps(3, *size, seed=size[1])
    target[0] = False
    metric = MSIoU(False, False, with_binary=True)
    edge = metric.get_edge
    monkeypatch.setattr(metric, "get_edge", lambda mask: edge(mask).astype(np.float64))  # of it half precision is left
    for pred, mask in zip(preds.numpy(), target.numpy(), strict=True):
        metric.step(pred, mask, normalize=False)
    assert multi_scale_iou(preds, target).tolist() == pytest.approx(metric.binary_results, abs=1e-12)


def test_multi_scale_iou_of_few_pixels_equals_pysodmetrics_as_it_stands() -> None:
    preds, target = maps(4, 30, 40)
    metric = MSIoU(False, False, with_binary=True)
    for pred, mask in zip(preds.numpy(), target.numpy(), strict=True):
        metric.step(pred, mask, normalize=False)
    assert multi_scale_iou(preds, target).tolist() == pytest.approx(metric.binary_results, abs=1e-12)


def test_metrics_are_means_over_images_of_any_size() -> None:
    (first, one), (second, two) = maps(2, 20, 30), maps(1, 11, 40)
    for metric, function in ((BoundaryIoU(), boundary_iou), (MultiScaleIoU(), multi_scale_iou)):
        metric.update([*first, *second], [*one, *two])
        every = [*function(first, one).tolist(), *function(second, two).tolist()]
        assert metric.compute().item() == pytest.approx(sum(every) / 3, abs=1e-14)
