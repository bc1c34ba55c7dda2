"""Two and three processes (gloo) give the values of one, also where they see different numbers of images or none."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
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
    InsertionDeletion,
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
from tests.distributed.processes import in_processes

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
        "energy": EnergyPointingGame(),
        "pointing": PointingGame(tolerance=1),
        "suite": SaliencySuite(weighted_f=True, normalize=True),
        "overlaps": OverlapMeasures(),
        "effort": HumanCorrectionEffort(),
        "context": ContextMeasure(),
        "size_invariant": SizeInvariantMeasures(),
        "boundary": BoundaryIoU(),
        "scales": MultiScaleIoU(),
    }
    of_instances: dict[str, Metric] = {
        "iasm": InstanceAlignedStructureMeasure(),
        "panoptic": PanopticQuality(),
        "f1": InstanceF1((0.1, 0.5)),
    }
    precision = InstanceAveragePrecision((0.3, 0.5))
    calibration, faithfulness = ConfidenceCalibration(), InsertionDeletion((0.05, 0.3), steps=1)
    for pred, mask, some, true in zip(*images(indices), strict=True):
        for metric in of_maps.values():
            metric.update([pred], [mask])
        for metric in of_instances.values():
            metric.update(some, true)
        precision.update(some, true, (torch.arange(len(some)) + 1) / 4)
        calibration.update(pred.mean()[None], mask.double().mean()[None])
        deletion, insertion = pred[:2, None, :2]  # one sample at two shares each
        faithfulness.update(
            deletion, insertion, torch.zeros(1), mask[0, :1].double()
        )  # some whole pictures score 0 too
    others = {**of_instances, "ap": precision, "calibration": calibration, "faithfulness": faithfulness}
    found = {}
    for name, metric in {**of_maps, **others}.items():
        value = metric.compute()
        parts = value if isinstance(value, dict) else {"": value}
        found |= {f"{name}/{part}": number.item() for part, number in parts.items()}
    return found


def work(world_size: int, rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", timeout=timedelta(minutes=3))
    found = {name: values(split[rank]) for name, split in SPLITS[world_size].items()}
    (folder / f"{world_size}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, SPLITS, folder)
    return folder


@pytest.mark.parametrize("world_size", SPLITS)
def test_several_processes_give_the_values_of_one(ranks: Path, world_size: int) -> None:
    expected = values(list(range(7)))
    unbounded = ("faithfulness", "effort")
    assert all(0 <= value < (1000 if name.startswith(unbounded) else 1.1) for name, value in expected.items())
    assert 0 < expected["faithfulness/undefined"] < 7
    for rank in range(world_size):
        found = json.loads((ranks / f"{world_size}-{rank}.json").read_text())
        for split in SPLITS[world_size]:
            assert found[split] == pytest.approx(expected, abs=1e-12), (rank, split)
