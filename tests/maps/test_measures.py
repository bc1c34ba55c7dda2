"""Maps counted by level against the metrics of tensors, hand arithmetic and identities."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from lightning_sal.maps.conventions import CONVENTIONS, Convention, convention_of
from lightning_sal.maps.counting import count_levels
from lightning_sal.maps.measures import Averages, measure
from lightning_sal.metrics import FMeasure, MaskIoU, SaliencySuite

OURS = CONVENTIONS["ours"]
PLAIN = Convention("plain", normalize="none", normalize_mae="none")
TYPES = {
    "8 bits": lambda draw, size: (draw.integers(20, 200, size).astype(np.uint8), 255),
    "16 bits": lambda draw, size: (draw.integers(0, 65536, size).astype(np.uint16), 65535),
    "floats": lambda draw, size: (draw.random(size), 1),
    "labels": lambda draw, size: (draw.integers(0, 2, size).astype(np.uint8), 1),
    "1 bit": lambda draw, size: (draw.random(size) > 0.6, 1),
    "constant": lambda draw, size: (np.full(size, 77, np.uint8), 255),
}


def measured(levels, top, truth, convention=OURS, truth_top=255):
    rules = convention.truth_above, convention.soft_truth, convention.centroid
    return measure(count_levels(levels, top, truth, truth_top, *rules), convention)


def blob(draw, size) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    centre = draw.uniform(0.2, 0.8, 2) * size
    return np.hypot(y - centre[0], x - centre[1]) < min(size) / 3


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_equal_the_metrics_of_tensors(name: str, normalize: bool) -> None:
    draw = np.random.default_rng(sum(map(ord, name)))
    size = (37, 52)
    levels, top = TYPES[name](draw, size)
    for mask in (blob(draw, size), np.zeros(size, bool), np.ones(size, bool)):
        found = measured(levels, top, mask, OURS if normalize else PLAIN)
        pair = torch.from_numpy(levels / top)[None], torch.from_numpy(mask)[None]
        expected = SaliencySuite(normalize=normalize).image_values(*pair)
        expected["giou"] = MaskIoU(normalize=normalize).per_image(*pair)["iou"]
        assert found.values == pytest.approx({key: value.item() for key, value in expected.items()}, abs=1e-12)


def test_means_over_images_and_maxima_of_mean_curves() -> None:
    draw = np.random.default_rng(3)
    images = [(TYPES["8 bits"](draw, size)[0], blob(draw, size)) for size in [(20, 31), (40, 25), (33, 33)]]
    curve, pooled = Averages(PLAIN), Averages(convention_of({"f_max": "precision-recall", "normalize": "none"}))
    suite, f, iou = SaliencySuite(), FMeasure(maximum="precision_recall"), MaskIoU()
    for levels, mask in images:
        for averages in (curve, pooled):
            averages.add(measured(levels, 255, mask, averages.convention))
        for metric in (suite, f, iou):
            metric.update(torch.from_numpy(levels / 255)[None], torch.from_numpy(mask)[None])
    expected = {name: value.item() for name, value in (suite.compute() | iou.compute()).items()}
    assert curve.results() == pytest.approx(expected, abs=1e-12)
    assert pooled.results()["f_max"] == pytest.approx(f.compute()["f_max"].item(), abs=1e-12)
    for name, values in f.curves().items():
        assert pooled.curves()[name] == pytest.approx(values.numpy(), abs=1e-12)


def test_groups_count_alike_whatever_their_size() -> None:
    mask = np.array([[1, 1, 0, 0]], bool)
    right, wrong = mask, ~mask
    images, groups = Averages(OURS), Averages(CONVENTIONS["cosod3k"])
    for levels, group in [(right, "a"), (right, "a"), (right, "a"), (wrong, "b")]:
        for averages in (images, groups):
            averages.add(measured(levels, 1, mask, averages.convention), group)
    assert images.results()["mae"] == pytest.approx(1 / 4)
    assert groups.results()["mae"] == pytest.approx(1 / 2)
    assert images.results()["f_max"] == pytest.approx(3 / 4)
    assert groups.results()["f_max"] == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))  # where all is predicted; else 1 / 2
    assert groups.curves()["recall"][-1] == pytest.approx(1 / 2)


def test_greys_of_a_truth_by_hand() -> None:
    """Of two pixels one is half object: MAE, hits and E compare with the half, S with the mask alone."""
    soft = convention_of({"soft_truth": True, "normalize": "none", "normalize_mae": "none", "empty_truth": False})
    found = measured(np.array([[255, 0, 0]], np.uint8), 255, np.array([[102, 255, 0]], np.uint8), soft)
    assert found.values["mae"] == pytest.approx((0.6 + 1 + 0) / 3)
    assert found.curves["precision"][-1] == pytest.approx(0.4)
    assert found.curves["recall"][-1] == pytest.approx(0.4 / 1.4)
    x, y = np.array([1, 0, 0]) - 1 / 3, np.array([0.4, 1, 0]) - 1.4 / 3
    xi = 2 * x * y / (x**2 + y**2)
    assert found.curves["e_measure"][-1] == pytest.approx(((1 + xi) ** 2 / 4).sum() / 2, abs=1e-12)
    hard = measured(np.array([[255, 0, 0]], np.uint8), 255, np.array([[0, 255, 0]], np.uint8))
    assert found.values["s_measure"] == pytest.approx(hard.values["s_measure"])


@pytest.mark.parametrize(("above", "objects"), [(127, 3), (128, 2), (25.5, 4)])
def test_where_greys_become_object(above: float, objects: int) -> None:
    truth = np.array([[0, 25, 26, 128, 129, 255]], np.uint8)
    counts = count_levels(truth, 255, truth, 255, above, False, "half up")
    assert counts.pixels[:, :, counts.objects].sum() == objects


def test_a_convention_that_is_changed_says_so() -> None:
    assert convention_of({"name": "matlab"}) == CONVENTIONS["matlab"]
    assert convention_of({"name": "matlab", "thresholds": 255}).name == "matlab, changed"
    assert convention_of({"f_max": "curve"}) == OURS


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, lightning_sal.maps.measures; print({'torch', 'scipy', 'torchmetrics'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
