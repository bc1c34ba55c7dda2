"""Advantages and losses: pure functions of tensors.

An objective is four choices, each written once: the advantage, the level of the ratio, the clip and the reduction.
"""

from lightning_sal.objectives.advantages import (
    Moments,
    batch_leave_one_out_advantages,
    centred,
    cgpo_advantages,
    geometric_confidence,
    group_advantages,
    has_variance,
    leave_one_out_advantages,
    moments,
    moments_of,
    overlong_penalty,
    power_sums,
    scaled,
    token_confidence,
)
from lightning_sal.objectives.calibration import calibrated, calibration_line, fit_sums
from lightning_sal.objectives.policy import clip_fractions, k3, log_ratio, policy_loss
from lightning_sal.objectives.segmentation import mask_bce, mask_dice, pair_masks, pairwise_mask_bce
from lightning_sal.objectives.supervised import sft_loss

__all__ = [
    "Moments",
    "batch_leave_one_out_advantages",
    "calibrated",
    "calibration_line",
    "centred",
    "cgpo_advantages",
    "clip_fractions",
    "fit_sums",
    "geometric_confidence",
    "group_advantages",
    "has_variance",
    "k3",
    "leave_one_out_advantages",
    "log_ratio",
    "mask_bce",
    "mask_dice",
    "moments",
    "moments_of",
    "overlong_penalty",
    "pair_masks",
    "pairwise_mask_bce",
    "policy_loss",
    "power_sums",
    "scaled",
    "sft_loss",
    "token_confidence",
]
