"""Two and three processes (gloo) give the values of one to the last bit, whoever sees how many images."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from lightning_sal.metrics import BoxAveragePrecision, BoxPrecisionRecall, CountAccuracy, MaskIoU, TargetAccuracy
from lightning_sal.metrics.functional import area_shares
from tests.distributed.processes import in_processes

COUNT = 23
SPLITS = {
    1: {"uneven": (range(COUNT),), "empty": (range(COUNT),), "backwards": (range(COUNT),)},
    2: {
        "uneven": (range(16), range(16, COUNT)),
        "empty": (range(0), range(COUNT)),
        "backwards": (range(COUNT - 1, 9, -1), range(9, -1, -1)),
    },
    3: {
        "uneven": (range(4), range(4, 21), range(21, COUNT)),
        "empty": (range(7), range(0), range(7, COUNT)),
        "backwards": (range(0, COUNT, 3), range(1, COUNT, 3), range(2, COUNT, 3)),
    },
}


def image(index: int) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor]:
    """Predicted and true boxes (N, 4), and predicted and true mask (H, W); no prediction where it cannot be read."""
    draw = torch.Generator().manual_seed(index)
    low = torch.rand(index % 4, 2, generator=draw) * 20
    true = torch.cat([low, low + 3 + torch.rand(len(low), 2, generator=draw) * 9], 1)
    preds = torch.cat(
        [true + torch.rand(len(true), 4, generator=draw), torch.rand(index % 3, 4, generator=draw).cumsum(1)]
    )
    mask, truth = torch.rand(2, 11 + index, 30 - index, generator=draw) > 0.6
    return (None, true, None, truth & bool(index % 5)) if index % 7 == 3 else (preds, true, mask, truth)


def values(indices: range) -> dict[str, float]:
    """What the metrics compute after one update an image."""
    metrics: dict[str, Metric] = {
        "ap": BoxAveragePrecision(),
        "bunched": BoxAveragePrecision(),
        "boxes": BoxPrecisionRecall(0.6),
        "counts": CountAccuracy(),
        "targets": TargetAccuracy(),
        "iou": MaskIoU(),
    }
    for preds, true, mask, truth in map(image, indices):
        found = torch.zeros(0, 4) if preds is None else preds
        shares = area_shares(found, 30, 40)
        metrics["ap"].update([found], [true], [shares])
        metrics["bunched"].update([found], [true], [1 - shares**8 * 1e-5], [torch.arange(len(true)) % 3 == 2])
        metrics["boxes"].update([preds], [true])
        counted = None if preds is None else len(preds)
        metrics["counts"].update([counted], [len(true)])
        metrics["targets"].update([counted], [len(true)])
        metrics["iou"].update([mask], [truth])
    return {
        f"{key}/{name}": value.item() for key, metric in metrics.items() for name, value in metric.compute().items()
    }


def work(world_size: int, rank: int, folder: Path) -> None:
    if world_size > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=3))
    found = {name: values(split[rank]) for name, split in SPLITS[world_size].items()}
    (folder / f"{world_size}-{rank}.json").write_text(json.dumps(found))
    if world_size > 1:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, SPLITS, folder)
    return folder


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_give_the_values_of_one_to_the_last_bit(ranks: Path, world_size: int) -> None:
    expected = json.loads((ranks / "1-0.json").read_text())
    assert all(0 < value < 3 for value in expected["uneven"].values()), expected
    assert len({json.dumps(found) for found in expected.values()}) == 1
    for rank in range(world_size):
        assert json.loads((ranks / f"{world_size}-{rank}.json").read_text()) == expected
