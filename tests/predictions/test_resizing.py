"""Maps of another size are resized as others do it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_sal.predictions.resizing import resize_bilinear

SIZES = [
    ((9, 12), (9, 12)), ((9, 12), (20, 31)), ((40, 31), (9, 12)), ((1, 1), (5, 7)), ((7, 5), (1, 1)), ((3, 50), (50, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_it_is_the_rule_of_torch_and_of_cv2(old, new):
    values = np.random.default_rng(0).random(old)
    ours = resize_bilinear(values, new)
    theirs = F.interpolate(torch.from_numpy(values)[None, None], new, mode="bilinear", align_corners=False)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), rtol=0, atol=1e-14)
    cv2 = pytest.importorskip("cv2")
    by_cv2 = cv2.resize(values, new[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, by_cv2, rtol=0, atol=1e-6)  # whose weights are float32


def test_whole_numbers_are_not_rounded_and_even_areas_stay_what_they_are():
    assert resize_bilinear(np.array([[0, 255]], np.uint8), (1, 4)).tolist() == [[0, 63.75, 191.25, 255]]
    assert (resize_bilinear(np.full((7, 5), 255, np.uint8), (13, 11)) == 255).all()
