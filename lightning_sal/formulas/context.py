"""The context measure (Wang et al. 2025, arXiv:2512.07076): precision and recall of what lies around a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from lightning_sal.formulas.arrays import EPS
from lightning_sal.formulas.contours import Mask

Map = NDArray[np.floating[Any]]

ALPHA = 6.0  # pixels; the authors' value
_FULL = 1 / (1 - np.exp(-1))  # a pixel whose whole surroundings are predicted is covered by 1


def context_measure(preds: Map, mask: Mask) -> float:
    """The measure of a map (H, W); see `lightning_sal.metrics.functional.context_measure`."""
    x, y = preds.astype(np.float64), mask.astype(np.float64)
    kernel = _kernel(mask)
    rows, columns = (
        np.pad(np.arange(n), k // 2, mode="reflect") for n, k in zip(mask.shape, kernel.shape, strict=True)
    )
    around = fftconvolve(np.stack([x, y])[:, rows][:, :, columns], kernel[None], mode="valid", axes=(1, 2))
    forward = (around[1] * x).sum() / (x.sum() + EPS)
    reverse = (_FULL * (1 - np.exp(-around[0])) * y).sum() / (y.sum() + EPS)
    return float(np.clip(2 * forward * reverse / (forward + reverse + EPS), 0, 1))


def _kernel(mask: Mask) -> NDArray[np.float64]:
    """A Gaussian shaped as the object lies, out to three deviations, of sum 1."""
    points = np.argwhere(mask)
    if len(points) < 2:
        covariance, reach = np.diag([0.25, 0.25]), np.ones(2, dtype=int)
    else:
        covariance = np.cov(points, rowvar=False)
        variances = np.maximum(covariance.diagonal(), EPS)
        covariance *= ALPHA**2 / variances.sum()
        reach = np.rint(3 * ALPHA * np.sqrt(variances / variances.sum())).astype(int)
    spread, axes = np.linalg.eigh(covariance)
    spread = np.maximum(spread, EPS)  # of an object that is a line
    places = np.stack(np.meshgrid(*(np.arange(-far, far + 1) for far in reach), indexing="ij"), axis=-1)
    kernel = np.exp(-0.5 * ((places @ axes) ** 2 / spread).sum(-1))
    return kernel / kernel.sum()
