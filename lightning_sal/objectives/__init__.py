"""Advantages and losses: pure functions of tensors.

An objective is four choices, each written once: the advantage, the level of the ratio, the clip and the reduction.
"""

from lightning_sal.objectives.advantages import cgpo_advantages, token_confidence
from lightning_sal.objectives.policy import clip_fractions, log_ratio, policy_loss
from lightning_sal.objectives.supervised import sft_loss

__all__ = ["cgpo_advantages", "clip_fractions", "log_ratio", "policy_loss", "sft_loss", "token_confidence"]
