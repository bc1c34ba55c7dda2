"""The field's tools written down again from their formulas, pixel by pixel, to be compared with what counts by levels.

Maps and truths are (H, W) uint8, as their files are. Nothing here is shared with the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

BETA2 = 0.3
Curve = list[float]


class Scores(NamedTuple):
    """What a tool says of one image; curves by ascending threshold."""

    s: float
    mae: float
    e: Curve
    f: Curve
    precision: Curve
    recall: Curve


def eval_co_sod(level: np.ndarray, truth: np.ndarray) -> Scores:
    """zzhanghub/eval-co-sod, evaluator.py: the map stretched but for MAE, the truth grey but for S, thresholds k / 254.

    The tool works in float32. So do the comparisons with thresholds here, since ties hang on it; sums are in float64.
    """
    raw, grey = (torch.from_numpy(values).float() / 255 for values in (level, truth))
    stretched = (raw - raw.min()) / (raw.max() - raw.min() + 1e-20)
    masks = [(stretched >= t).double().numpy() for t in torch.linspace(0, 1 - 1e-10, 255)]
    x, y = stretched.double().numpy(), grey.double().numpy()
    precision = [(mask * y).sum() / (mask.sum() + 1e-20) for mask in masks]
    recall = [(mask * y).sum() / (y.sum() + 1e-20) for mask in masks]
    return Scores(
        s=_co_sod_structure(x, y),
        mae=float(np.abs(raw.double().numpy() - y).mean()),
        e=[_alignment(mask, y, 1e-20) for mask in masks],
        f=[_f(p, r) for p, r in zip(precision, recall, strict=True)],
        precision=precision,
        recall=recall,
    )


def one_key(level: np.ndarray, truth: np.ndarray) -> Scores:
    """The authors' one-key MATLAB code (CODToolbox, main.m), E at `>=` as PySODMetrics says that it is meant."""
    return _matlab(_stretched(level), _stretched(level), truth > 128)


def sal_eval_toolbox(level: np.ndarray, truth: np.ndarray) -> Scores:
    """ArcherFMY/sal_eval_toolbox, performCalcu.m: the map divided by its maximum, and stretched for MAE alone."""
    value = level / 255
    return _matlab(value / value.max() if value.any() else value, _stretched(level), truth >= 128)


def in_groups(images: Mapping[str, Sequence[Scores]], of: Callable[[Scores], object]) -> np.ndarray:
    """The mean over groups of the mean over each group's images, of numbers or curves, as CoSOD3k's tables have it."""
    return np.mean([np.mean([of(image) for image in group], axis=0) for group in images.values()], axis=0)


def _stretched(level: np.ndarray) -> np.ndarray:
    value = level / 255
    low, high = value.min(), value.max()
    return (value - low) / (high - low) if high > low else value


def _matlab(x: np.ndarray, x_mae: np.ndarray, truth: np.ndarray) -> Scores:
    masks = [(x >= k / 255).astype(float) for k in range(256)]
    y = truth.astype(float)
    hits = [(mask * y).sum() for mask in masks]
    precision = [hit / mask.sum() if hit else 0.0 for hit, mask in zip(hits, masks, strict=True)]
    recall = [hit / y.sum() if hit else 0.0 for hit in hits]
    return Scores(
        s=_matlab_structure(x, truth),
        mae=float(np.abs(x_mae - y).mean()),
        e=[_matlab_alignment(mask, y) for mask in masks],
        f=[_f(p, r) for p, r in zip(precision, recall, strict=True)],
        precision=precision,
        recall=recall,
    )


def _f(precision: float, recall: float) -> float:
    below = BETA2 * precision + recall
    return float((1 + BETA2) * precision * recall / below) if below else 0.0


def _alignment(mask: np.ndarray, y: np.ndarray, epsilon: float) -> float:
    x, y = mask - mask.mean(), y - y.mean()
    return float((((2 * x * y / (x**2 + y**2 + epsilon)) + 1) ** 2 / 4).sum() / (x.size - 1))


def _matlab_alignment(mask: np.ndarray, y: np.ndarray) -> float:
    if y.all() or not y.any():
        return float((mask == y).sum() / (y.size - 1))
    return _alignment(mask, y, 2.0**-52)


def _co_sod_structure(x: np.ndarray, y: np.ndarray) -> float:
    if y.mean() in (0, 1):
        return float(x.mean() if y.mean() else 1 - x.mean())
    truth = y >= 0.5
    # Rounded from index 0, and not itself in the upper left
    rows, columns = (int(np.round(indices.mean())) for indices in np.nonzero(truth))
    return max(0.0, _structure(x, truth, rows, columns))


def _matlab_structure(x: np.ndarray, truth: np.ndarray) -> float:
    if truth.all() or not truth.any():
        return float(x.mean() if truth.any() else 1 - x.mean())
    rows, columns = (int(np.floor(indices.mean() + 1.5)) for indices in np.nonzero(truth))  # from index 1, halves up
    return max(0.0, _structure(x, truth, rows, columns))


def _structure(x: np.ndarray, truth: np.ndarray, rows: int, columns: int) -> float:
    share = truth.mean()
    objects = share * _object(x[truth]) + (1 - share) * _object(1 - x[~truth])
    quadrants = [
        (slice(a, b), slice(c, d)) for a, b in ((0, rows), (rows, None)) for c, d in ((0, columns), (columns, None))
    ]
    parts = [(x[q], truth[q]) for q in quadrants]
    regions = sum(part.size / x.size * _similarity(part, mask.astype(float)) for part, mask in parts if part.size)
    return float(0.5 * objects + 0.5 * regions)


def _object(values: np.ndarray) -> float:
    mean = values.mean()
    deviation = values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation)


def _similarity(x: np.ndarray, y: np.ndarray) -> float:
    degrees = max(x.size - 1, 1)
    dx, dy = x - x.mean(), y - y.mean()
    covariance, variances = (dx * dy).sum() / degrees, ((dx**2).sum() + (dy**2).sum()) / degrees
    above, below = 4 * x.mean() * y.mean() * covariance, (x.mean() ** 2 + y.mean() ** 2) * variances
    if above:
        return above / (below + 1e-20)
    return float(below == 0)
