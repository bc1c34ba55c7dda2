"""LightningModules: each ties a policy, a segmenter, rewards and an objective together and holds no mathematics."""

from lightning_sal.modules.cgpo import CGPO, BatchLOO
from lightning_sal.modules.endpoint import Endpoint
from lightning_sal.modules.groups import CISPO, DAPO, GRPO, GSPO, RLOO, DrGRPO
from lightning_sal.modules.rollout import RolloutModule
from lightning_sal.modules.segmenter import SegmenterFineTuning
from lightning_sal.modules.sft import SFT

__all__ = [
    "CGPO",
    "CISPO",
    "DAPO",
    "GRPO",
    "GSPO",
    "RLOO",
    "SFT",
    "BatchLOO",
    "DrGRPO",
    "Endpoint",
    "RolloutModule",
    "SegmenterFineTuning",
]
