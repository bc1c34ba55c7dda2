"""Advantages and losses: pure functions of tensors.

An objective is four choices, each written once: the advantage, the level of the ratio, the clip and the reduction.
"""

from lightning_sal.objectives.advantages import (
    cgpo_advantages,
    group_advantages,
    has_variance,
    leave_one_out_advantages,
    overlong_penalty,
    token_confidence,
)
from lightning_sal.objectives.policy import clip_fractions, k3, log_ratio, policy_loss
from lightning_sal.objectives.segmentation import mask_bce, mask_dice, pair_masks, pairwise_mask_bce
from lightning_sal.objectives.supervised import sft_loss

__all__ = [
    "cgpo_advantages",
    "clip_fractions",
    "group_advantages",
    "has_variance",
    "k3",
    "leave_one_out_advantages",
    "log_ratio",
    "mask_bce",
    "mask_dice",
    "overlong_penalty",
    "pair_masks",
    "pairwise_mask_bce",
    "policy_loss",
    "sft_loss",
    "token_confidence",
]
