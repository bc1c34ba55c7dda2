"""Maps that the tests of metrics share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

SOD = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sod" / "SOD"
needs_sod = pytest.mark.skipif(not SOD.is_dir(), reason="needs ../shared/data/sod/SOD (DSS maps with MATLAB values)")


def maps(count: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Soft float64 maps and masks that agree in part; the masks' random holes keep their centroids off halves."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.zeros(count, height, width, dtype=torch.bool)
    for mask in target:
        top, left = (int(torch.randint(0, side // 2, (), generator=draw)) for side in mask.shape)
        mask[top : top + height // 3 + 1, left : left + width // 3 + 2] = True
    target &= torch.rand(target.shape, generator=draw) > 0.2
    noise = torch.rand(target.shape, generator=draw, dtype=torch.float64)
    return (0.6 * target.roll(2, -1) + 0.4 * noise * (noise > 0.3)).clamp(0, 1), target


def dss() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, published DSS map and mask, both uint8 with values from 0 to 255, of the photographs of SOD."""
    found = []
    for path in sorted((SOD / "predictions" / "DSS").glob("*.png")):
        mask = Image.open(SOD / "GT" / path.name).convert("L")
        found.append((path.stem, np.array(Image.open(path).convert("L")), np.array(mask)))
    return found
