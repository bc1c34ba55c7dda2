"""gIoU and cIoU by hand arithmetic, against torch's own counting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_sal.metrics import MaskIoU
from lightning_sal.metrics.functional import mask_iou
from lightning_sal.metrics.functional.mask_iou import packed_iou, pairwise_iou
from tests.metrics.parts import maps

FIXTURE = Path(__file__).parents[3] / "shared" / "fixtures" / "dr_seg" / "dr_seg_eval.json"


def test_giou_counts_images_and_ciou_pixels() -> None:
    metric = MaskIoU()
    metric.update([torch.tensor([[1, 1, 0, 0]])], [torch.tensor([[1, 0, 0, 0]])])  # 1 of 2
    metric.update([torch.ones(2, 5)], [torch.ones(2, 5)])  # 10 of 10
    metric.update(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3))  # 0 of 0: right
    values = metric.compute()
    assert values["giou"].item() == pytest.approx((0.5 + 1 + 1) / 3, abs=1e-15)
    assert values["ciou"].item() == pytest.approx(11 / 12, abs=1e-15)


def test_soft_maps_are_masks_above_a_half() -> None:
    preds, target = maps(4, 20, 30)
    pairs = [((p > 0.5).numpy(), t.numpy()) for p, t in zip(preds, target, strict=True)]
    expected = [float((p & t).mean() / (p | t).mean()) for p, t in pairs]
    assert mask_iou(preds, target).tolist() == pytest.approx(expected, abs=1e-15)


def test_nothing_but_empty_masks_has_no_ciou() -> None:
    metric = MaskIoU()
    metric.update(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))
    values = metric.compute()
    assert values["giou"] == 1
    assert values["ciou"].isnan()


def test_an_answer_that_cannot_be_used_is_wrong_whatever_is_true() -> None:
    metric = MaskIoU()
    full, empty = torch.ones(2, 3), torch.zeros(2, 3)
    metric.update([full, None, None], [full, full, empty])
    values = metric.compute()
    assert values["giou"].item() == pytest.approx(1 / 3, abs=1e-15)
    assert values["ciou"].item() == 6 / 12  # 6 + 0 + 0 of 6 + 6 + 0


def read(rows: list[str]) -> Tensor:
    return torch.tensor([[int(pixel) for pixel in row] for row in rows], dtype=torch.bool)


def outcome(item: dict) -> tuple[Tensor | None, Tensor]:
    """The union of what was predicted, None where there is none or it has another size; and the truth."""
    truth = read(item["gt"])
    masks = None if item["instances"] is None else [read(rows) for rows in item["instances"]]
    if masks is None or any(mask.shape != truth.shape for mask in masks):
        return None, truth
    return torch.stack([torch.zeros_like(truth), *masks]).any(0), truth


@pytest.mark.skipif(
    not FIXTURE.is_file(), reason="needs ../shared, which lies beside the project where it is developed"
)
@pytest.mark.parametrize("number", range(4))
def test_equals_a_published_evaluation_where_that_counts_every_sample(number: int) -> None:
    group = json.loads(FIXTURE.read_text())["groups"][number]
    assert {item["outcome"] for item in group["items"]} <= {"ok", "parse_error", "size_mismatch"}
    every, theirs = MaskIoU(), MaskIoU()
    for item in group["items"]:
        pred, truth = outcome(item)
        assert (pred is None) == (item["outcome"] != "ok")
        every.update([pred], [truth])
        if (counted := item["evaluation_drseg"])["counted"]:
            found = theirs.per_image([pred], [truth])
            assert (found["overlap"].item(), found["union"].item()) == (counted["intersection"], counted["union"])
            theirs.update([pred], [truth])
    expected, right = group["expected"], group["expected"]["right"]
    assert every.total == right["n"]
    assert every.compute()["giou"].item() == pytest.approx(right["gIoU"], abs=1e-12)
    assert every.compute()["ciou"].item() == pytest.approx(right["cIoU"], abs=1e-12)
    assert theirs.total == expected["drseg"]["n_counted"]
    assert theirs.compute()["giou"].item() == pytest.approx(expected["drseg"]["gIoU"], abs=1e-12)
    assert theirs.compute()["ciou"].item() == pytest.approx(
        expected["vision_reasoner_calculate_iou"]["cIoU"], abs=1e-12
    )


def test_bad_masks_are_refused_by_sample() -> None:
    with pytest.raises(ValueError, match=r"target\[1\].* nan"):
        mask_iou(torch.zeros(2, 2, 2), torch.tensor([[[0.0, 1.0]] * 2, [[0.0, torch.nan]] * 2]))
    with pytest.raises(ValueError, match="same shape"):
        mask_iou(torch.zeros(2, 2, 2), torch.zeros(1, 2, 2))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (13, 21)])
@pytest.mark.parametrize(("count", "other"), [(3, 4), (0, 2), (2, 0)])
def test_both_ways_to_all_pairs_agree_with_each_pair(size: tuple[int, int], count: int, other: int) -> None:
    draw = torch.Generator().manual_seed(0)
    preds, target = (torch.rand(n, *size, generator=draw) > 0.5 for n in (count, other))
    preds[:1] = False
    expected = torch.zeros(count, other, dtype=torch.float64)
    for m, pred in enumerate(preds):
        for i, truth in enumerate(target):
            union = int((pred | truth).sum())
            expected[m, i] = int((pred & truth).sum()) / union if union else 0
    torch.testing.assert_close(packed_iou(preds, target), expected, atol=1e-15, rtol=0)
    torch.testing.assert_close(pairwise_iou(preds, target), expected, atol=1e-15, rtol=0)
    across = packed_iou(preds.mT, target.mT)  # as views
    torch.testing.assert_close(across, expected, atol=1e-15, rtol=0)
