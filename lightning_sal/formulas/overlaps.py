"""IoU, Dice and their like over thresholds, and areas under curves, from hits and false alarms.

Legend: B samples, T thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

from array_api_compat import array_namespace

from lightning_sal.formulas.arrays import Array
from lightning_sal.formulas.thresholds import ThresholdCounts, f_measures


class Overlaps(NamedTuple):
    """Values in [0, 1] at each threshold, (B, T) each: `iou`; `dice`; `ber`, the balanced error rate, of which less is
    better; and `specificity`, the share of the pixels beside the object that are not predicted."""

    iou: Array
    dice: Array
    ber: Array
    specificity: Array


def overlaps(counts: ThresholdCounts) -> Overlaps:
    """IoU, Dice, balanced error rate and specificity at each threshold; what would divide by 0 is 0."""
    xp = array_namespace(counts.hits)
    hits, alarms = counts.hits, counts.alarms
    objects, others = counts.objects[:, None], (counts.pixels - counts.objects)[:, None]
    specificity = (others - alarms) / xp.clip(others, min=1)
    return Overlaps(
        iou=hits / xp.clip(objects + alarms, min=1),
        dice=2 * hits / xp.clip(objects + hits + alarms, min=1),
        ber=1 - 0.5 * (hits / xp.clip(objects, min=1) + specificity),
        specificity=specificity,
    )


def summarised(curves: Overlaps) -> dict[str, Array]:
    """Of each curve (..., T + 1) its best value, its mean, and what stands last, the value at the adaptive threshold."""
    xp = array_namespace(curves.iou)
    best = {
        "iou_max": xp.max(curves.iou[..., :-1], axis=-1),
        "dice_max": xp.max(curves.dice[..., :-1], axis=-1),
        "ber_min": xp.min(curves.ber[..., :-1], axis=-1),
        "specificity_max": xp.max(curves.specificity[..., :-1], axis=-1),
    }
    means = {f"{name}_mean": xp.mean(curve[..., :-1], axis=-1) for name, curve in curves._asdict().items()}
    return best | means | {f"{name}_adaptive": curve[..., -1] for name, curve in curves._asdict().items()}


class Areas(NamedTuple):
    """Areas in [0, 1] of B samples, (B,) each: `auc_pr` under precision over recall, and `auc_roc` under the rate of hits
    over the rate of false alarms."""

    auc_pr: Array
    auc_roc: Array


def areas(counts: ThresholdCounts) -> Areas:
    """Areas under curves at thresholds that rise, of which every value reaches the first.

    That of precision is a sum of steps (the average precision), since precision does not run straight between two
    thresholds (Davis & Goadrich 2006). A sample without object has no precision: 0. Where the object is nothing or
    everything there is nothing to tell apart, and the area under ROC is that of chance: 0.5.
    """
    xp = array_namespace(counts.hits)
    objects, others = counts.objects, counts.pixels - counts.objects
    recall = counts.hits / xp.clip(objects, min=1)[:, None]
    false = counts.alarms / xp.clip(others, min=1)[:, None]
    beyond = xp.zeros_like(recall[:, :1])  # what is predicted above the highest threshold
    above, false_above = xp.concat([recall[:, 1:], beyond], axis=1), xp.concat([false[:, 1:], beyond], axis=1)
    roc = xp.sum((false - false_above) * (recall + above) / 2, axis=1)
    chance = (objects == 0) | (others == 0)
    return Areas(
        auc_pr=xp.sum((recall - above) * f_measures(counts).precision, axis=1),
        auc_roc=xp.where(chance, xp.full_like(roc, 0.5), roc),
    )
