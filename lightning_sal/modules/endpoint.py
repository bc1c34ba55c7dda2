"""A model behind an endpoint, evaluated as a policy is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any, NoReturn

import torch

from lightning_sal.clients.endpoint import AskedModel, Ledger, closing, opening
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.errors import UsageError
from lightning_sal.inference.asked import ask
from lightning_sal.inference.responses import MAPS, Reading, Response, find_masks
from lightning_sal.modules.evaluating import EvaluatingModule
from lightning_sal.paths import Paths
from lightning_sal.rewards import Reward, RewardFunction
from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.tiny.notice import notice


class Endpoint(EvaluatingModule):
    """Any model behind an OpenAI-compatible server or Gemini's own API, for `test`, `validate` and `predict`.

    It is asked by the conversations that a policy is asked by, and its answers are segmented and measured like those of one.
    There is nothing to train, and there are no attribution maps. On several ranks each asks about its own samples, with an
    equal share of the budget, the rate and the concurrency.

    Args:
        policy: The model, and how it is asked.
        segmenter: Makes masks of expressions, or of boxes and points; null takes the embedded small ones.
        reward: What a response is worth; null takes 0.5 correctness + 0.5 format. A function of a response is the whole
            reward.
        max_new_tokens: Limit of response tokens, thoughts included, > 0; a response that reaches it is truncated.
        evaluation_reading: How the answers are read: strict, as the format has it; lenient, where that finds nothing to
            segment, as a model may write that has not learned the format. The share of responses that keep the format is
            the same either way.

    Raises:
        ValueError: If the reward needs attribution maps.
    """

    def __init__(
        self,
        policy: EndpointConfig,
        segmenter: Segmenter | None = None,
        reward: Reward | RewardFunction | None = None,
        max_new_tokens: int = 2048,
        evaluation_reading: Reading = "lenient",
    ) -> None:
        super().__init__(segmenter, reward, max_new_tokens, evaluation_reading)
        self.endpoint = policy
        if MAPS in self.reward.needs:
            raise ValueError(
                f"{policy.name} has no attribution maps, which a term of model.reward needs: leave that out"
            )

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._refuse_training()
        super().setup(stage)
        self.asked = AskedModel(self.endpoint.share(self.trainer.world_size), self.max_new_tokens)
        self.asked.check()
        if self.trainer.is_global_zero:
            print(opening(self.endpoint, self.asked.kept), flush=True)

    def _notice(self, embedded_segmenter: bool) -> str | None:
        return notice(Paths().policy, None if embedded_segmenter else "its own")

    def respond(self, groups: Sequence[ImageGroup]) -> list[Response]:
        """Responses to B groups, with their masks."""
        with torch.no_grad():
            return find_masks(ask(groups, self.asked, self.evaluation_reading), self.segmenter)

    def _log_evaluation(self, stage: str) -> None:
        self.asked.require_answers(self._of_all_ranks(self.asked.ledger))
        super()._log_evaluation(stage)

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """How the responses come about, for the file of results."""
        config = self.endpoint
        return {
            "model": config.name, "address": config.address, "temperature": config.temperature,
            "longest_side": config.longest_side, **super().evaluation_settings,
        }  # fmt: skip

    def teardown(self, stage: str) -> None:
        ledger = self._of_all_ranks(self.asked.ledger)
        self.asked.close()
        if self.trainer.is_global_zero:
            print(closing(self.endpoint, ledger), flush=True)

    def _of_all_ranks(self, ledger: Ledger) -> Ledger:
        if self.trainer.world_size == 1:
            return ledger
        numbers = torch.tensor(astuple(ledger), dtype=torch.float64, device=self.device)
        summed: Any = self.trainer.strategy.reduce(numbers, reduce_op="sum")
        kinds = (type(getattr(ledger, field.name)) for field in fields(ledger))
        return Ledger(*(kind(value) for kind, value in zip(kinds, summed.tolist(), strict=True)))

    def training_step(self, *_: Any) -> NoReturn:
        """Refused."""
        self._refuse_training()

    def configure_optimizers(self) -> NoReturn:
        """Refused."""
        self._refuse_training()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        raise UsageError(f"{self.endpoint.name} has no weights here to load: leave out --ckpt_path")

    def _refuse_training(self) -> NoReturn:
        raise UsageError(
            f"{self.endpoint.name} is behind an endpoint, where nothing can be trained: take test or validate, or "
            "lightning_sal.modules.SFT and its like with weights"
        )
