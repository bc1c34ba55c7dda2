"""What a response is worth: correctness, format, alignment, and the weighted sum of such terms."""

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.alignment import Alignment, MapTerm, Pointing
from lightning_sal.rewards.answers import AnswerMatch
from lightning_sal.rewards.controls import Brevity, Chance, Noise
from lightning_sal.rewards.judge import LLMJudge
from lightning_sal.rewards.ranked import RankedReward
from lightning_sal.rewards.ranks import RankQueue
from lightning_sal.rewards.regions import Annotated, Centred, Elsewhere, Regions
from lightning_sal.rewards.terms import Correctness, Format, RewardTerm, Scores
from lightning_sal.rewards.total import Reward, RewardBatch

__all__ = [
    "Alignment",
    "Annotated",
    "AnswerMatch",
    "Brevity",
    "Centred",
    "Chance",
    "Correctness",
    "Elsewhere",
    "Format",
    "LLMJudge",
    "MapTerm",
    "Noise",
    "Pointing",
    "RankQueue",
    "RankedReward",
    "Regions",
    "Response",
    "Reward",
    "RewardBatch",
    "RewardTerm",
    "Scores",
]
