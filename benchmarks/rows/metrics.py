"""Images a second of metrics on the device, beside the CPU."""

from __future__ import annotations

import statistics
from argparse import Namespace
from typing import Any

from rows.row import Row, Values

OBJECTS = 4  # of an image


def measure(given: Namespace) -> Values:
    """The same inputs, update and compute, on either."""
    import torch
    from meter import Meter

    from lightning_sal import metrics

    inputs = {"SaliencySuite": _maps, "StructureMeasure": _maps}.get(given.metric, _instances)(given)
    values: Values = {}
    for device in dict.fromkeys(("cpu", given.device)):
        meter, metric = Meter(device), getattr(metrics, given.metric)().to(device)
        placed = [_placed(argument, device) for argument in inputs]
        seconds = []
        for _ in range(given.warmup + given.repeats):
            start = meter.now()
            metric.update(*placed)
            result = metric.compute()
            seconds.append(meter.now() - start)
            metric.reset()
        values[f"images a second, {device}"] = given.maps / statistics.median(seconds[given.warmup :])
        shown = next(iter(result.values())) if isinstance(result, dict) else result
        values[f"value, {device}"] = float(torch.as_tensor(shown).flatten()[0])
    if given.device != "cpu":
        values["GPU / CPU"] = float(values[f"images a second, {given.device}"]) / float(values["images a second, cpu"])
    return values


def _placed(argument: Any, device: str) -> Any:
    return [each.to(device) for each in argument] if isinstance(argument, list) else argument.to(device)


def _blobs(count: int, side: int) -> Any:
    """(count, side, side) in [0, 1], smooth."""
    import torch
    import torch.nn.functional as F

    coarse = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[:, 0]


def _maps(given: Namespace) -> tuple[Any, ...]:
    soft = _blobs(given.maps, given.side)
    return soft, soft.roll(3, 2) > 0.5


def _instances(given: Namespace) -> tuple[Any, ...]:
    import torch

    masks = (_blobs(given.maps * OBJECTS, given.side) > 0.6).unflatten(0, (given.maps, OBJECTS))
    predicted, true = list(masks), list(masks.roll(3, 3))
    if given.metric == "InstanceAveragePrecision":
        return predicted, true, [torch.arange(OBJECTS) / OBJECTS] * given.maps
    return predicted, true


NAMES = {
    "SaliencySuite": "S, E, F, MAE",
    "StructureMeasure": "S-measure",
    "InstanceAlignedStructureMeasure": "IASM",
    "InstanceAveragePrecision": "AP",
}
ROWS = [Row(f"metric {name}", measure, 8, 4, {"metric": metric}) for metric, name in NAMES.items()]
