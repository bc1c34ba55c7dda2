"""The human correction effort against PySODMetrics, and its borders and polygons against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from py_sod_metrics import HumanCorrectionEffortMeasure
from scipy.ndimage import gaussian_filter

from lightning_sal.formulas.contours import borders, count_vertices
from lightning_sal.metrics import HumanCorrectionEffort
from lightning_sal.metrics.functional import human_correction_effort

# Behind the end of the straight piece: a vertex where distances are to the piece, none where they are to its whole line
_BEYOND = np.array([[[0, 0]], [[5, 0]], [[2, 0]]], dtype=np.int32)
needs_segments = pytest.mark.skipif(
    len(cv2.approxPolyDP(_BEYOND, 2.0, False)) == 2, reason="OpenCV before its pull request 28119"
)


def shapes(seed: int) -> np.ndarray:
    """Blobs, noise, checks and stripes of one to forty pixels a side."""
    draw = np.random.default_rng(seed)
    height, width = draw.integers(1, 40, 2)
    noise = draw.normal(size=(height, width))
    stripes = np.add.outer(np.arange(height), np.arange(width)) % draw.integers(2, 7) < 2
    return [noise > draw.normal(), gaussian_filter(noise, 1) > 0, gaussian_filter(noise, 3) > 0.02, stripes][seed % 4]


@pytest.mark.parametrize("seed", range(60))
def test_borders_are_those_of_opencv_in_its_order(seed: int) -> None:
    mask = shapes(seed)
    expected = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)[0]
    found = borders(mask)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[:, ::-1].tolist() == theirs[:, 0].tolist()


@needs_segments
@pytest.mark.parametrize("seed", range(60))
def test_polygons_have_as_many_vertices_as_those_of_opencv(seed: int) -> None:
    draw = np.random.default_rng(seed)
    for border in borders(shapes(seed)):
        chain = border[np.sort(np.unique(border, axis=0, return_index=True)[1])]
        chain = chain[draw.integers(len(chain)) :]
        theirs = cv2.approxPolyDP(np.ascontiguousarray(chain[:, None, ::-1], dtype=np.int32), 2.0, False)
        assert count_vertices(chain, 2.0) == len(theirs)


@needs_segments
@pytest.mark.parametrize("seed", range(40))
def test_efforts_equal_pysodmetrics(seed: int) -> None:
    draw = np.random.default_rng(seed)
    height, width = draw.integers(1, 100, 2)
    mask = gaussian_filter(draw.normal(size=(height, width)), draw.choice([1, 2, 4, 8])) > draw.choice([-0.02, 0, 0.04])
    error = gaussian_filter(draw.normal(size=mask.shape), draw.choice([1, 2, 4]))
    pred = np.clip(gaussian_filter(mask.astype(float), 1) + draw.choice([0.3, 1, 5]) * error, 0, 1)
    expected = HumanCorrectionEffortMeasure().cal_hce(pred, mask)
    assert human_correction_effort(torch.from_numpy(pred)[None], torch.from_numpy(mask)[None]).item() == expected


def test_what_is_right_or_off_by_little_needs_no_correction() -> None:
    mask = torch.zeros(1, 60, 60)
    mask[:, 15:45, 15:45] = 1
    assert human_correction_effort(mask, mask).item() == 0
    assert human_correction_effort(mask.roll(3, 1), mask).item() == 0


def test_a_region_of_its_own_is_one_click() -> None:
    mask = torch.zeros(1, 60, 60)
    mask[:, 5:25, 5:25] = 1
    pred = mask.clone()
    pred[:, 40:56, 40:56] = 1
    assert human_correction_effort(pred, mask).item() == 1


@pytest.mark.parametrize("value", [0, 1])
def test_small_and_constant_maps(value: int) -> None:
    preds = torch.full((2, 1, 3), value, dtype=torch.bool)
    assert human_correction_effort(preds, preds).tolist() == [0, 0]
    assert human_correction_effort(~preds, preds).isfinite().all()


def test_the_metric_is_a_mean_of_which_less_is_better() -> None:
    mask = torch.zeros(60, 60)
    mask[5:25, 5:25] = 1
    pred = mask.clone()
    pred[40:56, 40:56] = 1
    metric = HumanCorrectionEffort()
    metric.update([mask, pred], [mask, mask])
    assert metric.compute().item() == 0.5
    assert metric.higher_is_better is False
