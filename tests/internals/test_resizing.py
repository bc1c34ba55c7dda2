"""Bytes resized without the CPU's kernel are the bytes of that kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_sal.internals.resizing import resize_bytes, resize_in_integers

KERNELS = [("bilinear", False), ("bilinear", True), ("bicubic", True)]


@pytest.mark.parametrize(("kernel", "antialias"), KERNELS)
def test_every_byte_is_that_of_the_cpu(kernel, antialias):
    """Smaller and larger, by little and by much, of noise and of edges, which overshoot."""
    generator = torch.Generator().manual_seed(0)
    for case in range(100):
        height, width, new_height, new_width = torch.randint(1, 300, (4,), generator=generator).tolist()
        if case % 10 == 0:
            new_height = height
        images = torch.randint(0, 256, (1 + case % 2, 3, height, width), generator=generator, dtype=torch.uint8)
        if case % 3 == 0:
            images = (images > 127).to(torch.uint8) * 255
        found = resize_in_integers(images, (new_height, new_width), kernel, antialias=antialias)
        expected = F.interpolate(images, (new_height, new_width), mode=kernel, antialias=antialias)
        assert torch.equal(found, expected), f"{height} x {width} to {new_height} x {new_width}"


def test_a_row_by_hand():
    """Four values become two: each the mean of the two whose centres are as near, 10.5 rounded up."""
    row = torch.tensor([10, 11, 100, 200], dtype=torch.uint8).expand(1, 3, 1, 4)
    for resize in (resize_bytes, resize_in_integers):
        assert resize(row, (1, 2), "bilinear", antialias=False)[0, 0].tolist() == [[11, 150]]
