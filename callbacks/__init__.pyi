from .before_after import BeforeAfter
from .budget import Budget
from .collapse_guard import CollapseGuard
from .curves import Curves
from .dashboard import Dashboard
from .embedding_spread import EmbeddingSpread
from .evaluation_results import EvaluationResults
from .finite_guard import FiniteGuard
from .hyper_parameters import HyperParameters
from .interleaved_sft import InterleavedSFT
from .prediction_writer import PredictionWriter
from .progress import RolloutProgressBar
from .reliability import Reliability
from .response_types import ResponseTypes
from .rollout_monitor import RolloutMonitor
from .rollout_panels import RolloutPanels
from .rollout_writer import RolloutWriter
from .run_record import RunRecord
from .save_adapter import SaveAdapter

__all__ = [
    "BeforeAfter",
    "Budget",
    "CollapseGuard",
    "Curves",
    "Dashboard",
    "EmbeddingSpread",
    "EvaluationResults",
    "FiniteGuard",
    "HyperParameters",
    "InterleavedSFT",
    "PredictionWriter",
    "Reliability",
    "ResponseTypes",
    "RolloutMonitor",
    "RolloutPanels",
    "RolloutProgressBar",
    "RolloutWriter",
    "RunRecord",
    "SaveAdapter",
]
