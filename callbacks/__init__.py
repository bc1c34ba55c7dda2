"""Callbacks, each usable in other Lightning projects: its docstring names the little it asks of a module."""

from lightning_sal.callbacks.before_after import BeforeAfter
from lightning_sal.callbacks.collapse_guard import CollapseGuard
from lightning_sal.callbacks.curves import Curves
from lightning_sal.callbacks.dashboard import Dashboard
from lightning_sal.callbacks.embedding_spread import EmbeddingSpread
from lightning_sal.callbacks.evaluation_results import EvaluationResults
from lightning_sal.callbacks.finite_guard import FiniteGuard
from lightning_sal.callbacks.hyper_parameters import HyperParameters
from lightning_sal.callbacks.interleaved_sft import InterleavedSFT
from lightning_sal.callbacks.prediction_writer import PredictionWriter
from lightning_sal.callbacks.progress import RolloutProgressBar
from lightning_sal.callbacks.reliability import Reliability
from lightning_sal.callbacks.response_types import ResponseTypes
from lightning_sal.callbacks.rollout_monitor import RolloutMonitor
from lightning_sal.callbacks.rollout_panels import RolloutPanels
from lightning_sal.callbacks.rollout_writer import RolloutWriter
from lightning_sal.callbacks.run_record import RunRecord
from lightning_sal.callbacks.save_adapter import SaveAdapter

__all__ = [
    "BeforeAfter",
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
