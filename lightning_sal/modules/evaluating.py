"""Evaluation and prediction, the same for whatever responds: a policy under training, or a model behind an endpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch

from lightning_sal.evaluation.metrics import Evaluation, Row
from lightning_sal.inference.responses import MASKS, Prediction, Reading, Response, prediction_of
from lightning_sal.rewards import Reward, RewardBatch, RewardFunction
from lightning_sal.rewards.total import ROUNDING
from lightning_sal.samples import Batch, ImageGroup
from lightning_sal.segmenters.base import Segmenter, require_fit
from lightning_sal.segmenters.by_prompt import SegmenterByPrompt
from lightning_sal.segmenters.tiny import embedded_segmenter
from lightning_sal.tasks import get_task


class EvaluatingModule(L.LightningModule):
    """A module whose responses are segmented, rewarded and measured; a subclass says by `respond` where they come from.

    Args:
        segmenter: Makes masks of expressions, or of boxes and points; null takes the embedded small ones. It is frozen.
        reward: What a response is worth; null takes 0.5 correctness + 0.5 format. A function of a response is the whole
            reward.
        max_new_tokens: Limit of response tokens, > 0; a response that reaches it is truncated.
        evaluation_reading: How the answers that are judged are read: strict, as the format has it; lenient, where that finds
            nothing to segment, as a model may write that has not learned the format. The share of responses that keep the
            format is the same either way.
        **others: For the classes behind this one.
    """

    def __init__(
        self,
        segmenter: Segmenter | None,
        reward: Reward | RewardFunction | None,
        max_new_tokens: int,
        evaluation_reading: Reading,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.segmenter: Segmenter
        if segmenter is not None:
            self.segmenter = segmenter
        self.reward = reward if isinstance(reward, Reward) else Reward(None if reward is None else [reward])
        self.max_new_tokens = max_new_tokens
        self.evaluation_reading: Reading = evaluation_reading
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {max_new_tokens} must be at least 1")

    @abstractmethod
    def respond(self, groups: Sequence[ImageGroup]) -> list[Response]:
        """Responses to B groups for evaluation, with their masks and what else the reward needs."""

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """How the responses that evaluation judges come about, for the file of results."""
        segmenter = type(self.segmenter).__name__
        return {"max_new_tokens": self.max_new_tokens, "reading": self.evaluation_reading, "segmenter": segmenter}

    def setup(self, stage: str) -> None:
        segmenter: Any = getattr(self, "segmenter", SegmenterByPrompt)  # the embedded ones
        trainer: Any = self.trainer
        segments = stage != "fit" or MASKS in self.reward.needs or trainer.enable_validation
        for task in getattr(trainer.datamodule, "known_tasks", ()) if segments else ():
            require_fit(segmenter, get_task(task).prompt_type, task)
        if trainer.is_global_zero and (line := self._notice_of(trainer.datamodule)):
            print(line, flush=True)

    def _notice_of(self, data: Any) -> str | None:
        """What to know of the embedded models where the samples are no drawn scenes."""
        if getattr(data, "drawn", True):  # of other people's nothing is known
            return None
        tasks: Sequence[str] = getattr(data, "known_tasks", ())
        return self._notice(not hasattr(self, "segmenter") and any(get_task(task).prompt_type for task in tasks))

    @abstractmethod
    def _notice(self, embedded_segmenter: bool) -> str | None:
        """What to know of the embedded models before photographs; see `lightning_sal.tiny.notice`."""

    def configure_model(self) -> None:
        if hasattr(self, "evaluation"):
            return
        if not hasattr(self, "segmenter"):
            self.segmenter = embedded_segmenter()
        if isinstance(self.segmenter, torch.nn.Module):
            self.segmenter.requires_grad_(False).eval()
        self.evaluation = self._new_evaluation()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_start(self) -> None:
        benchmarks = getattr(self.trainer.datamodule, "benchmarks", None)  # type: ignore[attr-defined]
        self.evaluation = self._new_evaluation(benchmarks).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int) -> tuple[list[Row], list[Prediction]]:
        """Responses: one row of values an image, and one prediction a group."""
        return self._evaluate_batch(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Responses and their masks, one prediction a group."""
        return list(map(prediction_of, self._respond(batch.groups)))

    def evaluate(self, groups: Sequence[ImageGroup]) -> tuple[RewardBatch, list[Response]]:
        """Responses to B groups, as evaluation judges them: their rewards, and the responses with their masks."""
        responses = self._respond(groups)
        return self.reward(responses), responses

    def _respond(self, groups: Sequence[ImageGroup]) -> list[Response]:
        """Responses to B >= 0 groups."""
        return self.respond(groups) if groups else []

    def _evaluate_batch(self, batch: Batch) -> tuple[list[Row], list[Prediction]]:
        responses = self._respond(batch.groups)
        if not responses:
            return [], []
        responses = self.evaluation.measure(responses)
        return self.evaluation.update(responses, self.reward(responses)), list(map(prediction_of, responses))

    def _new_evaluation(self, benchmarks: Mapping[str, str] | None = None) -> Evaluation:
        low, high = self.reward.bounds
        return Evaluation(benchmarks, low >= 0 and high <= 1 + ROUNDING, self.reward.names)

    def _log_evaluation(self, stage: str) -> None:
        values = self.evaluation.compute()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)  # equal already
