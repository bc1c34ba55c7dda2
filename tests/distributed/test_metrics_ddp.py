"""Two processes (gloo) give the values of one, also where they see different numbers of images or none."""

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

from lightning_sal.metrics import InstanceAlignedStructureMeasure, MeanAbsoluteError, StructureMeasure

SPLITS = {"uneven": ([0, 1, 2, 3, 4], [5, 6]), "empty": ([], [0, 1, 2, 3, 4, 5, 6])}


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
    metrics: dict[str, Metric] = {
        "s": StructureMeasure(),
        "mae": MeanAbsoluteError(),
        "iasm": InstanceAlignedStructureMeasure(),
    }
    for pred, mask, some, true in zip(*images(indices), strict=True):
        metrics["s"].update([pred], [mask])
        metrics["mae"].update([pred], [mask])
        metrics["iasm"].update(some, true)
    return {name: metric.compute().item() for name, metric in metrics.items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2, timeout=timedelta(minutes=3)
    )
    found = {name: values(split[rank]) for name, split in SPLITS.items()}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_processes_give_the_values_of_one(tmp_path: Path) -> None:
    expected = values(list(range(7)))
    assert all(0 < value < 1 for value in expected.values())
    spawn(work, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for split in SPLITS:
            assert found[split] == pytest.approx(expected, abs=1e-12), (rank, split)
