"""Run lengths and their strings against faster-coco-eval."""

import numpy as np
import pytest
from faster_coco_eval import mask as coco_mask

from lightning_sal import run_lengths


def masks() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    noise = [draw.random((31, 47)) < share for share in (0, 0.01, 0.5, 0.99, 1)]
    large = np.zeros((700, 1100), bool)
    large[40:660, 90:1000] = True
    return [*noise, large, np.eye(3, dtype=bool), np.ones((1, 1), bool)]


def test_masks_become_strings_and_all_strings_are_read_at_once() -> None:
    texts = []
    for mask in masks():
        runs = run_lengths.of_mask(mask)
        assert (mask == np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(mask.shape[::-1]).T).all()
        texts.append(run_lengths.to_string(runs))
        assert texts[-1].encode() == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    runs, counts = run_lengths.from_strings(texts)
    parts = np.split(runs, counts.cumsum()[:-1])
    assert all((part == run_lengths.of_mask(mask)).all() for part, mask in zip(parts, masks(), strict=True))
    assert [len(part) for part in run_lengths.from_strings([])] == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "cut off"), ("0P", "cut off"), ("0 ", "characters"), ("0é", "characters"), ("PPPPPPPP0", "beyond any size")],
)
def test_strings_that_are_none_are_refused_among_others(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_lengths.from_strings(["04", text, "04"])
