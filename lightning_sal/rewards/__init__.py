"""What a response is worth: correctness, format, and the weighted sum of such terms."""

from lightning_sal.inference.evidence import compose_answers
from lightning_sal.rewards.terms import Correctness, Format, Judged, RewardTerm, Scores
from lightning_sal.rewards.total import Reward, RewardBatch

__all__ = ["Correctness", "Format", "Judged", "Reward", "RewardBatch", "RewardTerm", "Scores", "compose_answers"]
