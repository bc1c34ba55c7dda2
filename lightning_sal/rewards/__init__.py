"""What a response is worth: correctness, format, and the weighted sum of such terms."""

from lightning_sal.inference.responses import Response
from lightning_sal.rewards.terms import Correctness, Format, RewardTerm, Scores
from lightning_sal.rewards.total import Reward, RewardBatch

__all__ = ["Correctness", "Format", "Response", "Reward", "RewardBatch", "RewardTerm", "Scores"]
