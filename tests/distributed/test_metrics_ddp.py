"""Two and three processes (gloo) give the values of one, also where they see different numbers of images or none."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torchmetrics import Metric

from lightning_sal.metrics import (
    ConfidenceCalibration,
    EnhancedAlignmentMeasure,
    FMeasure,
    InstanceAlignedStructureMeasure,
    InstanceAveragePrecision,
    MaskIoU,
    MeanAbsoluteError,
    SaliencySuite,
    StructureMeasure,
    WeightedFMeasure,
)

SPLITS = {
    2: {"uneven": ([0, 1, 2, 3, 4], [5, 6]), "empty": ([], [0, 1, 2, 3, 4, 5, 6])},
    3: {"uneven": ([0, 1, 2, 3], [4, 5], [6]), "empty": ([], [0, 1, 2, 3, 4, 5, 6], [])},
}


def images(indices: list[int]) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Soft maps and masks (H, W), predicted and true instances (N, H, W) of some of seven images of different sizes."""
    maps, masks, preds, target = [], [], [], []
    for index in indices:
        draw = torch.Generator().manual_seed(index)
        size = (12 + 3 * index, 30 - index)
        maps.append(torch.rand(size, generator=draw, dtype=torch.float64))
        masks.append(torch.rand(size, generator=draw) > 0.5)
        preds.append(torch.rand(index % 3, *size, generator=draw) > 0.5)
        target.append(torch.rand((index + 1) % 4, *size, generator=draw) > 0.5)
    return maps, masks, preds, target


def values(indices: list[int]) -> dict[str, float]:
    """What the metrics compute after one update an image."""
    of_maps: dict[str, Metric] = {
        "s": StructureMeasure(),
        "mae": MeanAbsoluteError(),
        "e": EnhancedAlignmentMeasure(),
        "f": FMeasure(maximum="precision_recall"),
        "weighted": WeightedFMeasure(),
        "iou": MaskIoU(),
        "suite": SaliencySuite(weighted_f=True, normalize=True),
    }
    iasm, precision = InstanceAlignedStructureMeasure(), InstanceAveragePrecision((0.3, 0.5))
    calibration = ConfidenceCalibration()
    for pred, mask, some, true in zip(*images(indices), strict=True):
        for metric in of_maps.values():
            metric.update([pred], [mask])
        iasm.update(some, true)
        precision.update(some, true, (torch.arange(len(some)) + 1) / 4)
        calibration.update(pred.mean()[None], mask.double().mean()[None])
    found = {}
    for name, metric in {**of_maps, "iasm": iasm, "ap": precision, "calibration": calibration}.items():
        value = metric.compute()
        parts = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}/{part}": number.item() for part, number in parts.items()}
    return found


def work(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world_size, timeout=timedelta(minutes=3)
    )
    found = {name: values(split[rank]) for name, split in SPLITS[world_size].items()}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_give_the_values_of_one(tmp_path: Path, world_size: int) -> None:
    expected = values(list(range(7)))
    assert all(0 <= value < 1.1 for value in expected.values())
    spawn(work, args=(world_size, str(tmp_path)), nprocs=world_size)
    for rank in range(world_size):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for split in SPLITS[world_size]:
            assert found[split] == pytest.approx(expected, abs=1e-12), (rank, split)
