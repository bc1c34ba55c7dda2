"""Insertion and deletion by hand arithmetic; deletion also against the pixel flipping of Quantus 0.6.0.

Quantus is no dependency: quantus_values.py wrote what it gave. It has no insertion.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_sal.metrics import InsertionDeletion
from lightning_sal.metrics.functional import area_under_curve, blurred, deletion_order, normalised, perturbed

QUANTUS = json.loads(Path(__file__).with_name("quantus_values.json").read_text())


def test_deletion_equals_the_pixel_flipping_of_quantus() -> None:
    weight = torch.tensor(QUANTUS["weight"], dtype=torch.float64)
    for map, image, expected in zip(QUANTUS["maps"], QUANTUS["images"], QUANTUS["pixel_flipping"], strict=True):
        picture = torch.tensor(image, dtype=torch.uint8)[..., None].expand(-1, -1, 3)
        pixels = weight.numel()
        shares = [min(1, QUANTUS["pixels_a_step"] * step / pixels) for step in range(1, len(expected) + 1)]
        grey = perturbed(picture, torch.tensor(map), shares)[..., 0].double() / 255
        assert (weight * grey**2).sum((1, 2)).sqrt().tolist() == pytest.approx(expected, abs=1e-12)


def test_pictures_by_hand() -> None:
    image = torch.arange(1, 13, dtype=torch.uint8).view(2, 2, 3)
    map = torch.tensor([[0.5, 2.0], [-1.0, 0.5]])  # order: 1, then 0 before 3 as they stand, then 2
    assert deletion_order(map).tolist() == [1, 0, 3, 2]
    removed = [[7, 8, 9], [10, 11, 12]]
    deleted = perturbed(image, map, (0, 0.5, 1))
    assert deleted.tolist() == [image.tolist(), [[[0] * 3] * 2, removed], [[[0] * 3] * 2] * 2]
    colour = torch.tensor([4, 5, 6], dtype=torch.uint8)
    inserted = perturbed(image, map, (0.25,), "insertion", colour)
    assert inserted.tolist() == [[[[4, 5, 6], [4, 5, 6]], [[4, 5, 6], [4, 5, 6]]]]  # pixel 1 is 4, 5, 6 itself
    assert perturbed(image, map, (0.5,), "insertion")[0].tolist() == [[[1, 2, 3], [4, 5, 6]], [[0] * 3] * 2]


def test_what_is_deleted_is_what_is_inserted() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(256, (9, 14, 3), generator=draw, dtype=torch.uint8)
    map, shares, soft = torch.rand(9, 14, generator=draw), (0.05, 0.15, 0.3, 1.0), blurred(image, 2.0)
    deleted, inserted = (perturbed(image, map, shares, mode, soft).int() for mode in ("deletion", "insertion"))
    assert torch.equal(deleted + inserted, (image.int() + soft.int()).expand_as(deleted))
    black = [(picture == 0).all(2).sum().item() for picture in perturbed(image.clamp(min=1), map, shares)]
    assert black == [6, 19, 38, 126]  # of 126 pixels


def test_blur_keeps_what_is_flat_and_spreads_what_is_not() -> None:
    image = torch.full((20, 30, 3), 77, dtype=torch.uint8)
    assert torch.equal(blurred(image, 4.0), image)
    image[10, 15] = 255
    soft = blurred(image, 1.0)
    expected = 77 + 178 * math.exp(-1 / 2) / (2 * math.pi)  # one pixel beside, sampled from a Gaussian of sigma 1
    assert abs(int(soft[10, 16, 0]) - expected) < 1
    assert torch.equal(soft[..., 0], soft[..., 2])
    with pytest.raises(ValueError, match="sigma"):
        blurred(image, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(2, 3, 3)}, "uint8"),
        ({"map": torch.zeros(3, 2)}, r"map \(3, 2\)"),
        ({"map": torch.full((2, 3), torch.nan)}, "not finite"),
        ({"shares": (0.5, 1.5)}, "shares"),
        ({"mode": "removal"}, "deletion or insertion"),
        ({"baseline": 256}, "grey value"),
        ({"baseline": torch.zeros(3)}, "grey value"),
    ],
)
def test_what_makes_no_picture_is_refused(change: dict[str, object], message: str) -> None:
    given = {"image": torch.zeros(2, 3, 3, dtype=torch.uint8), "map": torch.zeros(2, 3), "shares": (0.5,)}
    with pytest.raises(ValueError, match=message):
        perturbed(**{**given, **change})  # type: ignore[arg-type]


def test_blank_picture_is_0_and_whole_picture_100() -> None:
    blank, whole = torch.tensor([-3.0, -1.0]), torch.tensor([-1.0, -2.0])  # the second is likelier without its picture
    scores = torch.stack([blank, whole, (blank + whole) / 2], 1)
    assert normalised(scores, blank, whole).tolist() == [[0, 100, 50]] * 2


def test_area_is_that_of_the_trapezoids() -> None:
    # 100 to 40 over 0.2, 40 to 0 over 0.8
    assert area_under_curve(torch.tensor([100.0, 40.0, 0.0]), (0, 0.2, 1)) == pytest.approx(14 + 16)
    for shares in ((0, 0.5), (0.1, 0.5, 1), (0, 0, 1), (0, 1)):
        with pytest.raises(ValueError, match="ascend from 0 to 1"):
            area_under_curve(torch.zeros(3), shares)


def scores(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_curves_by_hand() -> None:
    metric = InsertionDeletion(shares=(0.1, 0.5), steps=1)
    # on the scale: deletion 80, 20 and 60, 40; insertion 10, 90 and 30, 50
    metric.update(scores([-1.4, -2.6]), scores([-2.8, -1.2]), torch.tensor([-3.0]), torch.tensor([-1.0]))
    metric.update(scores([-3.0, -2.0]), scores([-1.5, -2.5]), torch.tensor([0.0]), torch.tensor([-5.0]))
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx(
        {
            "deletion_10": 70,
            "deletion_50": 30,
            "insertion_10": 20,
            "insertion_50": 70,
            "deletion_auc": 0.1 * 85 + 0.4 * 50 + 0.5 * 15,
            "insertion_auc": 0.1 * 10 + 0.4 * 45 + 0.5 * 85,
            "undefined": 0,
        },
        abs=1e-6,
    )
    curves = metric.curves()
    assert curves.shares == (0, 0.1, 0.5, 1)
    assert curves.deletion.tolist() == pytest.approx([100, 70, 30, 0], abs=1e-6)
    assert curves.insertion.tolist() == pytest.approx([0, 20, 70, 100], abs=1e-6)


def test_sample_without_a_scale_is_counted_apart() -> None:
    metric = InsertionDeletion(shares=(0.5,), steps=1)
    metric.update(scores([9.0], [1.0]), scores([9.0], [3.0]), torch.tensor([2.0, 0.0]), torch.tensor([2.0, 4.0]))
    values = metric.compute()
    assert (values["undefined"], values["deletion_50"], values["insertion_50"]) == (1, 25, 75)
    metric.reset()
    metric.update(scores([9.0]), scores([9.0]), torch.tensor([2.0]), torch.tensor([2.0]))
    assert metric.compute()["undefined"] == 1
    assert all(value.isnan() for name, value in metric.compute().items() if name != "undefined")


def test_points_are_the_reported_shares_and_the_steps() -> None:
    assert InsertionDeletion().points == tuple(step / 20 for step in range(1, 20))
    assert InsertionDeletion((0.15, 0.3), steps=4).points == (0.15, 0.25, 0.3, 0.5, 0.75)
    for shares, steps in (((), 4), ((0.5, 0.2), 4), ((0.0,), 4), ((0.5,), 0)):
        with pytest.raises(ValueError, match="shares must ascend"):
            InsertionDeletion(shares, steps)


def test_bad_scores_are_refused_by_sample() -> None:
    metric, one = InsertionDeletion((0.5,), steps=1), torch.zeros(2)
    with pytest.raises(ValueError, match=r"insertion_scores \(2, 2\) must have the shape \(2, 1\)"):
        metric.update(torch.zeros(2, 1), torch.zeros(2, 2), one, one)
    with pytest.raises(ValueError, match="sample 1 has a score that is not finite"):
        metric.update(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([0.0, -torch.inf]), one)
    assert metric.total == 0
    metric.update(torch.zeros(0, 1), torch.zeros(0, 1), torch.zeros(0), torch.zeros(0))  # a rank without samples
    assert metric.total == 0
