"""The measures of one image from its counts, and of many images from theirs.

Legend: L levels of a map, K of its ground truth, T thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_sal.formulas.overlaps import areas, overlaps
from lightning_sal.formulas.structure import Moments, structure_of
from lightning_sal.formulas.thresholds import ThresholdCounts, enhanced_alignment, f_measures, f_of, soft_alignment
from lightning_sal.maps.conventions import NORMALIZATIONS, THRESHOLDS, Convention
from lightning_sal.maps.counting import LevelCounts

Array = np.ndarray[Any, Any]

BEST = {  # measure -> the curve, averaged over images, whose best value it is
    "e_max": ("e_measure", np.max),
    "f_max": ("f_measure", np.max),
    "iou_max": ("iou", np.max),
    "dice_max": ("dice", np.max),
    "ber_min": ("ber", np.min),
    "specificity_max": ("specificity", np.max),
}


@dataclass(frozen=True, slots=True)
class ImageMeasures:
    """What is measured of one image.

    Args:
        values: Measure -> its value.
        curves: Name of a curve -> (T,) its values.
        sums: Name -> what is added up over images before it is divided.
    """

    values: dict[str, float]
    curves: dict[str, Array]
    sums: dict[str, float]


def measure(counts: LevelCounts, convention: Convention, everything: bool = False) -> ImageMeasures:
    """Measure one image.

    Args:
        counts: What `count_levels` counted, by the convention's `truth_above`, `soft_truth` and `centroid`.
        convention: How.
        everything: Whether measures that few papers report are wanted too: those of `lightning_sal.formulas.overlaps`.
    """
    values, mae_values = (
        _normalized(counts, rule, convention) for rule in (convention.normalize, convention.normalize_mae)
    )
    by_kind = counts.pixels.sum((0, 1))  # (K, L)
    sides = np.stack([counts.pixels[:, :, chosen].sum(2) for chosen in (counts.objects, ~counts.objects)])
    kinds = _reaching(by_kind, values, convention)  # (K, T + 1), the adaptive threshold last
    size = by_kind.sum(1).astype(np.float64)
    hits = counts.truth @ kinds
    whole = ThresholdCounts(
        hits[None], (kinds.sum(0) - hits)[None], np.array([counts.truth @ size]), np.array([size.sum()])
    )
    if convention.empty_truth and whole.objects[0] in (0, whole.pixels[0]):
        e = enhanced_alignment(whole)
    else:
        e = soft_alignment(kinds[None], size[None], counts.truth)
    curves = f_measures(whole)._asdict() | {"e_measure": e} | (overlaps(whole)._asdict() if everything else {})
    curves = {name: curve[0] for name, curve in curves.items()}
    inside = sides[:, :, :, values > 0.5].sum((1, 2, 3))  # found at one half, of the object and beside it
    overlap, union = float(inside[0]), float(sides[0].sum() + inside[1])
    error = np.abs(mae_values.astype(np.float64) - counts.truth[:, None])
    found = {
        "s_measure": float(structure_of(_moments(sides, values))[0]),
        "mae": float((by_kind * error).sum() / whole.pixels[0]),
        "giou": overlap / union if union else 1.0,
    }
    for name, (curve, best) in BEST.items():
        if curve in curves:
            short = name.rpartition("_")[0]
            found[name] = float(best(curves[curve][:-1]))
            found[f"{short}_mean"] = float(curves[curve][:-1].mean())
            found[f"{short}_adaptive"] = float(curves[curve][-1])
    if everything:
        found |= {name: float(area[0]) for name, area in areas(_of_the_curve(whole))._asdict().items()}
    return ImageMeasures(
        found, {name: curve[:-1] for name, curve in curves.items()}, {"overlap": overlap, "union": union}
    )


def _of_the_curve(counts: ThresholdCounts) -> ThresholdCounts:
    """Without the adaptive threshold."""
    return counts._replace(hits=counts.hits[:, :-1], alarms=counts.alarms[:, :-1])


def _normalized(counts: LevelCounts, rule: str, convention: Convention) -> Array:
    """(L,) what the levels mean after normalisation; those that do not occur may mean anything in [0, 1]."""
    values = counts.values.astype(convention.precision)
    present = np.flatnonzero(counts.pixels.any((0, 1, 2)))
    return np.clip(NORMALIZATIONS[rule](values, float(values[present[0]]), float(values[present[-1]])), 0, 1)


def _reaching(by_kind: Array, values: Array, convention: Convention) -> Array:
    """(K, T + 1) pixels whose value reaches each threshold, and twice the mean, at most 1."""
    steps = convention.thresholds
    reached = THRESHOLDS[steps](values)
    starts = np.searchsorted(reached, np.arange(1, steps + 1))  # the first level that reaches it: values ascend
    above = np.concatenate([by_kind[:, ::-1].cumsum(1)[:, ::-1], np.zeros((len(by_kind), 1), by_kind.dtype)], 1)
    values = values.astype(np.float64)
    adaptive = min(2 * float(by_kind.sum(0) @ values) / by_kind.sum(), 1)
    return above[:, [*starts, np.searchsorted(values, adaptive)]].astype(np.float64)


def _moments(sides: Array, values: Array) -> Moments:
    """Moments of the values over object and background of each quadrant, as of one sample, from (2, 2, 2, L) pixels."""
    values = values.astype(np.float64)
    present = sides.sum(0) > 0
    first = np.where(present.any(2), values[present.argmax(2)], 0.0)
    # Seen from its first level a constant quadrant is exactly 0: whether one without object scores 1 or 0 hangs on it
    offsets = values - first[:, :, None]
    count = sides.sum(3).astype(np.float64)
    mean = (sides * offsets).sum(3) / np.maximum(count, 1)
    m2 = (sides * (offsets - mean[..., None]) ** 2).sum(3)
    return Moments(count[None], (first + mean)[None], m2[None])


@dataclass(slots=True)
class _Sums:
    images: int = 0
    values: dict[str, list[float]] = field(default_factory=dict)
    curves: dict[str, Array] = field(default_factory=dict)


class Averages:
    """Means over images, added in the order of the benchmark, whatever process has measured them.

    Args:
        convention: How.
    """

    def __init__(self, convention: Convention) -> None:
        self.convention = convention
        self.groups: dict[str, _Sums] = {}
        self.sums: dict[str, list[float]] = {}

    def add(self, image: ImageMeasures, group: str = "") -> None:
        """Add an image.

        Args:
            image: What was measured.
            group: The group that it is averaged within, where the convention does.
        """
        own = self.groups.setdefault(group if self.convention.average == "groups" else "", _Sums())
        own.images += 1
        for name, value in image.values.items():
            own.values.setdefault(name, []).append(value)
        for name, curve in image.curves.items():
            own.curves[name] = own.curves.get(name, 0) + curve
        for name, value in image.sums.items():
            self.sums.setdefault(name, []).append(value)

    def curves(self) -> dict[str, Array]:
        """Name of a curve -> (T,) its mean; and `threshold`, where its points lie in [0, 1]."""
        groups = list(self.groups.values())
        means = {name: _mean([own.curves[name] / own.images for own in groups]) for name in groups[0].curves}
        return {"threshold": np.linspace(0, 1, self.convention.thresholds)} | means

    def results(self) -> dict[str, float]:
        """Measure -> its value over all images: best values of mean curves, and means of the rest."""
        groups = list(self.groups.values())
        means = {name: _mean([math.fsum(own.values[name]) / own.images for own in groups]) for name in groups[0].values}
        curves = self.curves()
        means |= {name: float(best(curves[curve])) for name, (curve, best) in BEST.items() if curve in curves}
        if self.convention.f_max == "precision-recall":
            means["f_max"] = float(f_of(curves["precision"], curves["recall"]).max())
        overlap, union = (math.fsum(self.sums[name]) for name in ("overlap", "union"))
        return means | ({"ciou": overlap / union} if union else {})


def _mean(values: Any) -> Any:
    return sum(values) / len(values)
