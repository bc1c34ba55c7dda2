"""Losses of masks: by hand, by identity, and against what EVF-SAM's code computed."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_sal.objectives import mask_bce, mask_dice, pair_masks, pairwise_mask_bce

FIXTURES = Path(__file__).resolve().parents[2] / ".." / "shared" / "fixtures"


def masks(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(count, 7, 9, generator=generator, dtype=torch.float64)
    return logits, torch.rand(count, 7, 9, generator=generator) < 0.4


def test_bce_by_hand():
    logits = torch.tensor([[[0.0, 2.0], [-1.0, 3.0]]], dtype=torch.float64)
    target = torch.tensor([[[True, True], [False, False]]])
    p = logits.sigmoid()[0]
    expected = -(p[0, 0].log() + p[0, 1].log() + (1 - p[1, 0]).log() + (1 - p[1, 1]).log()) / 4
    torch.testing.assert_close(mask_bce(logits, target)[0], expected)


def test_dice_by_hand():
    target = torch.tensor([[[True, False]], [[False, False]]])
    logits = torch.zeros(2, 1, 2, dtype=torch.float64)  # p = 1/2 everywhere
    expected = [1 - (0.001 + 1e-6) / (0.002 + 1e-6), 1 - 1e-6 / (0.001 + 1e-6)]
    assert mask_dice(logits, target).tolist() == pytest.approx(expected)


def test_a_sure_and_right_mask_costs_nothing_and_a_wrong_one_all():
    target = torch.tensor([[[True, False]]])
    certain = torch.tensor([[[60.0, -60.0]]])
    assert mask_bce(certain, target).item() == pytest.approx(0, abs=1e-6)
    assert mask_dice(certain, target).item() == pytest.approx(0, abs=1e-6)
    assert mask_bce(-certain, target).item() == pytest.approx(60)
    assert mask_dice(-certain, target).item() == pytest.approx(1, abs=1e-3)


def test_all_pairs_at_once_are_the_pairs_one_by_one():
    (logits, _), (_, target) = masks(3, 0), masks(4, 1)
    together = pairwise_mask_bce(logits, target)
    assert together.shape == (3, 4)
    for expression in range(3):
        for instance in range(4):
            alone = mask_bce(logits[expression, None], target[instance, None])[0]
            torch.testing.assert_close(together[expression, instance], alone)


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the reference fixtures (../shared/fixtures) are absent")
def test_losses_equal_the_reference():
    """Both summed over the masks of all images and divided by their number."""
    from safetensors.torch import load_file

    golden = load_file(FIXTURES / "evf_sam2_small256.safetensors")
    pairs = [(golden[f"forward_pred_{image}"], golden[f"gt_{image}"]) for image in (0, 1)]
    for loss, name in ((mask_bce, "mask_bce"), (mask_dice, "mask_dice")):
        ours = torch.cat([loss(*pair) for pair in pairs]).mean()
        torch.testing.assert_close(ours, golden[f"loss_{name}_loss"][0], atol=1e-6, rtol=0)


def test_a_region_is_compared_with_the_union_and_instances_one_by_one():
    logits = torch.tensor([[[5.0, -5.0, -5.0]], [[-5.0, -5.0, 5.0]], [[-5.0, 5.0, -5.0]]])
    union = torch.tensor([[[True, False, True]]])
    both, target = pair_masks(logits[:2], union, instances=False)
    assert both.tolist() == [[[5.0, -5.0, 5.0]]]
    assert torch.equal(target, union)
    instances = torch.tensor([[[False, False, True]], [[True, False, False]]])
    matched, targets = pair_masks(logits, instances, instances=True)
    assert torch.equal(matched > 0, targets)
    assert len(matched) == 2  # the third expression names nothing that is there
    assert len(pair_masks(logits[:1], instances, instances=True)[0]) == 1
    assert len(pair_masks(logits, instances[:0], instances=True)[0]) == 0


def test_pairs_cost_the_least_of_all_assignments():
    logits, target = masks(4, 1)
    cost = {order: sum(mask_bce(logits[list(order)], target)).item() for order in permutations(range(4))}
    assert sum(mask_bce(*pair_masks(logits, target, instances=True))).item() == pytest.approx(min(cost.values()))
