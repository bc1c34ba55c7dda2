"""LightningModules: each ties a policy, a segmenter, rewards and an objective together and holds no mathematics."""

from lightning_sal.modules.cgpo import CGPO
from lightning_sal.modules.sft import SFT

__all__ = ["CGPO", "SFT"]
