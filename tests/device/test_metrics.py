"""Metrics take tensors of any device, and keep their states on their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_sal import metrics
from tests.device import pretend

torch.manual_seed(0)
MAPS = torch.rand(2, 12, 10), torch.rand(2, 12, 10) > 0.5
INSTANCES = torch.rand(2, 12, 10) > 0.4, torch.rand(3, 12, 10) > 0.4
ANSWERS = torch.tensor([0.95, 0.95, 0.35, 0.55]), torch.tensor([0.9, 0.4, 0.3, 0.5])
INPUTS = {"ConfidenceCalibration": ANSWERS, "InstanceAlignedStructureMeasure": INSTANCES}
INPUTS["MatchedStructureMeasure"] = INSTANCES
CURVES = torch.rand(2, 19), torch.rand(2, 19), torch.rand(2), 1 + torch.rand(2)
INPUTS["InsertionDeletion"] = CURVES
BOXES = torch.tensor([[0, 0, 8, 8], [1, 2, 5, 9.5]]), torch.tensor([[0, 0, 8, 7], [1, 2, 5, 9], [4, 4, 6, 6.0]])
INPUTS["BoxPrecisionRecall"], INPUTS["BoxAveragePrecision"] = BOXES, (*BOXES, torch.tensor([0.9, 0.8]))
INPUTS["CountAccuracy"] = INPUTS["TargetAccuracy"] = COUNTS = torch.tensor([0, 2, 3]), torch.tensor([0, 0, 3])
INPUTS["PanopticQuality"] = INPUTS["InstanceF1"] = INSTANCES
INPUTS["InstanceAveragePrecision"] = (*INSTANCES, torch.tensor([0.9, 0.8]))


def values(name, metric_on, *inputs, listed=False):
    """What a metric on one device computes of inputs on others, in one call and by an image."""
    metric = getattr(metrics, name)().to(metric_on)
    metric.update(*([[value] if listed == "one" else list(value) for value in inputs] if listed else inputs))
    found = metric.compute()
    found = found if isinstance(found, dict) else {"value": found}
    states = [state for state in metric.metric_state.values() if isinstance(state, Tensor)]
    assert {tensor.device.type for tensor in (*found.values(), *states)} == {torch.device(metric_on).type}
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("name", metrics.__all__)
@pytest.mark.parametrize("deterministic", [False, True])
def test_inputs_of_another_device(name, deterministic):
    there, inputs = pretend.device(), INPUTS.get(name, MAPS)
    moved = [value.to(there) for value in inputs]
    expected = pytest.approx(values(name, "cpu", *inputs), abs=1e-12)  # the CPU adds map by map, others all at once
    torch.use_deterministic_algorithms(deterministic)
    try:
        assert values(name, there, *inputs) == expected
        assert values(name, there, *moved) == expected
        assert values(name, there, moved[0], *inputs[1:]) == expected
        assert values(name, "cpu", *moved) == expected
        listed = "one" if name in INPUTS else "many"
        listed = listed if all(inputs is not flat for flat in (ANSWERS, CURVES, COUNTS)) else False
        assert values(name, there, moved[0], *inputs[1:], listed=listed) == expected
    finally:
        torch.use_deterministic_algorithms(False)
