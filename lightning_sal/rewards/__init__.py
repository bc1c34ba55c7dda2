"""What a response is worth: correctness, format, alignment, boxes and points, and the weighted sum of such terms."""

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.alignment import Alignment, MapTerm, Pointing
from lightning_sal.rewards.answers import AnswerMatch
from lightning_sal.rewards.controls import Brevity, Chance, Noise
from lightning_sal.rewards.functions import FunctionTerm, RewardFunction
from lightning_sal.rewards.judge import LLMJudge
from lightning_sal.rewards.objects import (
    BoxIoU,
    CornerHit,
    CountMatch,
    FormatJSON,
    FormatTags,
    Look,
    NonRepeat,
    OverlapHit,
    PointDistance,
    PointHit,
)
from lightning_sal.rewards.perception import perception_terms
from lightning_sal.rewards.ranked import RankedReward
from lightning_sal.rewards.ranks import RankQueue
from lightning_sal.rewards.regions import Annotated, Centred, Elsewhere, Regions
from lightning_sal.rewards.terms import Correctness, Format, RewardTerm, Scores
from lightning_sal.rewards.total import Reward, RewardBatch

__all__ = [
    "Alignment",
    "Annotated",
    "AnswerMatch",
    "BoxIoU",
    "Brevity",
    "Centred",
    "Chance",
    "CornerHit",
    "Correctness",
    "CountMatch",
    "Elsewhere",
    "Format",
    "FormatJSON",
    "FormatTags",
    "FunctionTerm",
    "LLMJudge",
    "Look",
    "MapTerm",
    "Noise",
    "NonRepeat",
    "OverlapHit",
    "PointDistance",
    "PointHit",
    "Pointing",
    "RankQueue",
    "RankedReward",
    "Regions",
    "Response",
    "Reward",
    "RewardBatch",
    "RewardFunction",
    "RewardTerm",
    "Scores",
    "perception_terms",
]
