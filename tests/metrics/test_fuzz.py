"""What holds for every metric whatever masks come: values that are finite or refused, states that do not grow, plots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics import (
    BoundaryIoU,
    ConfidenceCalibration,
    ContextMeasure,
    EnergyPointingGame,
    EnhancedAlignmentMeasure,
    FMeasure,
    HumanCorrectionEffort,
    InstanceAlignedStructureMeasure,
    InstanceAveragePrecision,
    InstanceF1,
    MaskIoU,
    MeanAbsoluteError,
    MultiScaleIoU,
    OverlapMeasures,
    PanopticQuality,
    PointingGame,
    SaliencySuite,
    SizeInvariantMeasures,
    StructureMeasure,
    WeightedFMeasure,
)

mpl.use("Agg")
OF_MAPS: list[Callable[..., Metric]] = [
    StructureMeasure,
    MeanAbsoluteError,
    EnhancedAlignmentMeasure,
    FMeasure,
    WeightedFMeasure,
    MaskIoU,
    PointingGame,
    SaliencySuite,
    OverlapMeasures,
    ContextMeasure,
    SizeInvariantMeasures,
    BoundaryIoU,
    MultiScaleIoU,
    HumanCorrectionEffort,
]
OF_INSTANCES: list[Callable[..., Metric]] = [
    InstanceAlignedStructureMeasure,
    InstanceAveragePrecision,
    PanopticQuality,
    InstanceF1,
]
# E of HW - 1 = 1 pixel reaches 2; an effort is a number of clicks, of 9 x 9 pixels at most
UPPER = {EnhancedAlignmentMeasure: 2.0, SaliencySuite: 2.0, HumanCorrectionEffort: 81.0}
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
DTYPES = st.sampled_from([torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64])


@st.composite
def masks(draw: Any, size: tuple[int, int], count: int) -> Tensor:
    """Empty, full, random, or random as a view with gaps between its pixels."""
    seed, kind = draw(st.integers(0, 2**31)), draw(st.sampled_from(["empty", "full", "random", "view"]))
    noise = torch.rand(count, 2 * size[0], 2 * size[1], generator=torch.Generator().manual_seed(seed))
    chosen = {
        "empty": torch.zeros(count, *size),
        "full": torch.ones(count, *size),
        "random": noise[:, : size[0], : size[1]].contiguous(),
        "view": noise[:, ::2, ::2],
    }[kind]
    return (chosen > 0.5).to(draw(DTYPES))


def numbers(value: Any) -> list[float]:
    return [v.item() for v in (value.values() if isinstance(value, dict) else [value])]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("make", OF_MAPS)
def test_maps_of_any_kind_give_numbers(make: Callable[..., Metric], data: st.DataObject) -> None:
    metric, pixels = make(), 0
    for size in data.draw(st.lists(SIZES, min_size=1, max_size=3)):
        preds, target = (data.draw(masks(size, 2)) for _ in range(2))
        pixels += int((preds.bool() | target.bool()).sum())
        metric.update(preds, target)
        metric.update(list(preds), list(target))
    for value in numbers(metric.compute()):
        assert 0 <= value <= UPPER.get(make, 1.0 + 1e-9) or (make is MaskIoU and pixels == 0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("make", OF_INSTANCES)
def test_instances_of_any_kind_give_numbers(make: Callable[..., Metric], data: st.DataObject) -> None:
    metric, instances, of_both = make(), 0, 0
    for size in data.draw(st.lists(SIZES, min_size=1, max_size=3)):
        preds, target = (data.draw(masks(size, data.draw(st.integers(0, 3)))) for _ in range(2))
        instances, of_both = instances + len(target), of_both + len(preds) + len(target)
        metric.update(preds, target)
    without = (make is InstanceAveragePrecision and not instances) or (make is PanopticQuality and not of_both)
    for value in numbers(metric.compute()):
        assert 0 <= value <= 1 + 1e-9 or without


@pytest.mark.parametrize("make", [*OF_MAPS, EnergyPointingGame, InstanceAlignedStructureMeasure])
def test_states_do_not_grow_and_plots_appear(make: Callable[..., Metric]) -> None:
    metric = make()

    def held() -> dict[str, tuple[int, ...]]:
        states = {name: getattr(metric, name) for name in metric._defaults}
        assert all(isinstance(state, Tensor) for state in states.values())
        return {name: tuple(state.shape) for name, state in states.items()}

    before = held()
    for seed in range(5):
        noise = torch.rand(2, 2, 8, 9, generator=torch.Generator().manual_seed(seed)) > 0.4
        metric.update(noise[0], noise[1])
    assert held() == before
    assert_plots(metric)


def test_average_precision_plots() -> None:
    metric = InstanceAveragePrecision()
    noise = torch.rand(2, 2, 8, 9, generator=torch.Generator().manual_seed(0)) > 0.4
    metric.update(noise[0], noise[1])
    assert_plots(metric)


def assert_plots(metric: Metric) -> None:
    figure, _ = metric.plot()
    assert isinstance(figure, Figure)
    figure, _ = metric.plot([metric.compute(), metric.compute()])
    assert isinstance(figure, Figure)
    plt.close("all")


def test_calibration_does_not_grow() -> None:
    metric = ConfidenceCalibration()
    before = {name: getattr(metric, name).shape for name in metric._defaults}
    for _ in range(3):
        metric.update(torch.rand(10), torch.rand(10))
    assert {name: getattr(metric, name).shape for name in metric._defaults} == before
