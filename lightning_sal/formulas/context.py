"""The context measure (Wang et al. 2025, arXiv:2512.07076): precision and recall of what lies around a pixel."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from lightning_sal.formulas.arrays import EPS
from lightning_sal.formulas.contours import Mask

Map = NDArray[np.floating[Any]]

ALPHA = 6.0  # pixels; the authors' value
_FULL = 1 / (1 - np.exp(-1))  # a pixel whose whole surroundings are predicted is covered by 1


def context_measure(preds: Map, mask: Mask) -> float:
    """The measure of a map (H, W); see `lightning_sal.metrics.functional.context_measure`."""
    x, y = preds.astype(np.float64), mask.astype(np.float64)
    kernel = _kernel(mask)
    around_x, around_y = _around(np.stack([x, y]), kernel)
    forward = (around_y * x).sum() / (x.sum() + EPS)
    reverse = (_FULL * (1 - np.exp(-around_x)) * y).sum() / (y.sum() + EPS)
    return float(np.clip(2 * forward * reverse / (forward + reverse + EPS), 0, 1))


def _around(images: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images (N, H, W), mirrored at their edges, by a kernel of odd size that looks alike from both ends: (N, H, W)."""
    (rows, columns), (down, right) = images.shape[1:], kernel.shape
    images = images[:, np.pad(np.arange(rows), down // 2, mode="reflect")]
    images = images[:, :, np.pad(np.arange(columns), right // 2, mode="reflect")]
    size = [cast(int, next_fast_len(side, real=True)) for side in images.shape[1:]]  # what wraps around is cut off
    product = np.fft.rfft2(images, size) * np.fft.rfft2(kernel, size)
    return np.fft.irfft2(product, size)[:, down - 1 : down - 1 + rows, right - 1 : right - 1 + columns]


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
