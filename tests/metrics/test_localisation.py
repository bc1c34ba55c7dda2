"""Pointing games by hand arithmetic, against Quantus 0.6.0 and the reference's rewards; weights against interpolation.

Quantus is no dependency: quantus_values.py wrote what it gave.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_sal.metrics import EnergyPointingGame, PointingGame
from lightning_sal.metrics.functional import (
    alignment_weights,
    boxes_to_mask,
    energy_pointing_game,
    mass_share,
    pointing_game,
)

QUANTUS = json.loads(Path(__file__).with_name("quantus_values.json").read_text())
REWARDS = Path(__file__).resolve().parents[2] / "../shared/fixtures/saliency_alignment/saliency_rewards.json"


def test_games_equal_quantus() -> None:
    maps, masks = torch.tensor(QUANTUS["maps"], dtype=torch.float64), torch.tensor(QUANTUS["masks"])
    mass, hits = QUANTUS["relevance_mass_accuracy"], QUANTUS["pointing_game"]
    assert {*hits} == {0, 1}
    assert energy_pointing_game(maps, masks).tolist() == pytest.approx(mass, abs=1e-12)
    assert pointing_game(maps, masks).tolist() == hits
    energy, pointing = EnergyPointingGame(), PointingGame()
    for metric in (energy, pointing):
        metric.update(maps[:3], masks[:3])
        metric.update(list(maps[3:]), list(masks[3:]))
    assert energy.compute().item() == pytest.approx(sum(mass) / len(mass), abs=1e-12)
    assert pointing.compute().item() == sum(hits) / len(hits)


@pytest.mark.skipif(
    not REWARDS.is_file(), reason="needs ../shared/fixtures/saliency_alignment (the reference's rewards)"
)
def test_share_and_pointing_of_a_box_are_those_of_the_reference() -> None:
    records = json.loads(REWARDS.read_text())["saliency_reward"]
    assert len(records) >= 20
    for record in records:
        expected = record.get("right", record["reward"])
        if expected in ("error", None):
            with pytest.raises(ValueError, match=r"Expecting value|Extra data|must have the shape"):
                box_mask(record)
            continue
        maps, mask = torch.tensor(record["map"], dtype=torch.float64)[None], box_mask(record)[None]
        share = mass_share(maps, mask, torch.ones_like(mask)).item()
        assert share * record["valid"] == pytest.approx(expected, abs=1e-6), record
        if mask.any():
            assert energy_pointing_game(maps, mask).item() == pytest.approx(share, abs=1e-15)
        assert pointing_game(maps, mask).item() == record["definition_pointing_hit"], record


def box_mask(record: dict[str, Any]) -> torch.Tensor:
    height, width = len(record["map"]), len(record["map"][0])
    box = torch.tensor([json.loads(record["bbox"])], dtype=torch.float64)
    if box.shape[1] == 4:
        box = box * torch.tensor([width, height, width, height])
    return boxes_to_mask(box, height, width)


def test_only_positive_values_have_mass() -> None:
    maps = torch.tensor([[[2.0, -5.0], [1.0, 1.0]], [[-1.0, 0.0], [-2.0, 0.0]]])
    target = torch.tensor([[[1, 1], [0, 0]]] * 2)
    assert energy_pointing_game(maps, target).tolist() == [0.5, 0]  # the second has no mass
    assert pointing_game(maps, target).tolist() == [1, 0]


def test_first_of_several_largest_values_counts() -> None:
    maps = torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    assert pointing_game(maps, torch.tensor([[[0, 1, 0], [0, 0, 0]]])) == 1
    assert pointing_game(maps, torch.tensor([[[0, 0, 1], [1, 0, 0]]])) == 0


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0), (4.9, 0), (5, 1), (15, 1)])
def test_tolerance_is_the_distance_to_the_mask(tolerance: float, hit: int) -> None:
    maps, target = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
    maps[0, 1, 2], target[0, 4, 6] = 1, 1  # 3 down, 4 across
    assert pointing_game(maps, target, tolerance) == hit


def test_unusable_samples_are_refused_by_number() -> None:
    maps, target = torch.ones(3, 2, 2), torch.ones(3, 2, 2)
    target[1] = 0
    with pytest.raises(ValueError, match=r"target\[1\] is empty"):
        energy_pointing_game(maps, target)
    metric = EnergyPointingGame()
    with pytest.raises(ValueError, match=r"image 1: .* empty"):
        metric.update(list(maps), list(target))
    assert metric.total == 0
    maps[2, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"maps\[2\] has values that are not finite"):
        pointing_game(maps, target)
    with pytest.raises(ValueError, match="same shape"):
        pointing_game(maps, target[:1])
    with pytest.raises(ValueError, match="tolerance"):
        pointing_game(torch.ones(1, 2, 2), torch.ones(1, 2, 2), tolerance=-1)


@pytest.mark.parametrize("size", [(13, 21), (21, 13), (40, 7), (5, 5), (1, 30), (3, 4)])
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (7, 2), (6, 6)])
def test_share_equals_that_of_the_resized_map(size: tuple[int, int], grid: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(4, *grid, generator=draw, dtype=torch.float64)
    mask = torch.rand(size, generator=draw) > 0.6
    mask[0, 0] = True
    resized = F.interpolate(maps.clamp(min=0)[None], size, mode="bilinear", align_corners=False)[0]
    inside, whole = (alignment_weights(each, *grid) for each in (mask, torch.ones_like(mask)))
    mass = (maps.clamp(min=0) * inside).sum((1, 2))
    torch.testing.assert_close(mass, (resized * mask).sum((1, 2)), atol=1e-12, rtol=1e-12)
    assert whole.sum().item() == pytest.approx(mask.numel(), abs=1e-9)
    expected = energy_pointing_game(resized, mask.expand(4, *size))
    torch.testing.assert_close(mass_share(maps, inside, whole), expected, atol=1e-12, rtol=0)


def test_weights_need_a_mask_and_cells() -> None:
    with pytest.raises(ValueError, match=r"mask \(2, 3, 3\)"):
        alignment_weights(torch.ones(2, 3, 3), 2, 2)
    with pytest.raises(ValueError, match="not 0 x 2"):
        alignment_weights(torch.ones(3, 3), 0, 2)


def test_boxes_are_floored_with_both_ends_and_cut_off_at_the_image() -> None:
    boxes = torch.tensor([[1.9, 0.2, 2.0, 1.99], [-3.0, 2.0, 0.5, 2.0], [4.0, 0.0, 3.0, 2.0], [9.0, 0.0, 12.0, 2.0]])
    expected = [
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]  # the last two cover nothing: reversed, off the image
    assert boxes_to_mask(boxes, 3, 5).int().tolist() == expected
    assert not boxes_to_mask(torch.zeros(0, 4), 3, 5).any()
    with pytest.raises(ValueError, match=r"boxes\[1\] .* finite"):
        boxes_to_mask(torch.tensor([[0.0, 0, 1, 1], [0, 0, torch.nan, 1]]), 3, 5)
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        boxes_to_mask(torch.zeros(4), 3, 5)
