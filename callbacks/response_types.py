"""Which types of responses a training samples, and what it makes of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lightning_sal.callbacks.ranks import over_ranks
from lightning_sal.evaluation.response_types import (
    advantages_by_algorithm,
    classify,
    figure,
    require_matplotlib,
    shares,
    threshold,
)
from lightning_sal.inference.answers import answer_mask
from lightning_sal.objectives import geometric_confidence, token_confidence
from lightning_sal.pages.loggers import add_figure, boards


class ResponseTypes(L.Callback):
    """Log the shares of HrLc, LrHc, HrHc and LrLc among the sampled responses, and draw them with their advantages.

    | name | what |
    |---|---|
    | `train/type/HrLc`, ... | share of the responses since the last figure, by reward (r) and confidence (c) |
    | `rollouts/response_types` | a figure of reward against confidence, and of the mean advantage by type |

    The figure goes to loggers of TensorBoard, W&B and MLflow. The advantages are those of the training, and those that
    CGPO, its variants, BatchLOO and, where a prompt has several responses at a step, GRPO, Dr.GRPO and RLOO would give the
    same responses. Values are over the responses of all processes. A figure is due every `every_n_steps`; one that no
    response came before is left out. The responses since the last figure are saved in checkpoints.

    What it asks of others, and nothing more: after a step the module's `record`, where it has one, is None or has
    `groups` (B objects with `key` and `task`), `rewards.total`, `confidence` and `advantages`, all (B,). Two variants of
    CGPO take another confidence, from the log-probabilities that the responses were sampled with: they are shown where
    `record` has `rollout` and `responses` too and the module a `policy`; that of the answer alone where it is known what
    each token of a response says.

    Args:
        every_n_steps: Optimisation steps from one figure to the next, >= 1.
        reward_threshold: Where a high reward begins; null takes the mean over the responses of a figure, which leaves
            responses on both sides wherever any two rewards differ. With a number, figures compare over time.
        confidence_threshold: Where high confidence begins, in [0, 1]; null takes the mean likewise.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        reward_threshold: float | None = None,
        confidence_threshold: float | None = None,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError("ResponseTypes: every_n_steps must be at least 1")
        self.every_n_steps = every_n_steps
        self.reward_threshold, self.confidence_threshold = reward_threshold, confidence_threshold
        self._collected: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if boards(trainer):
            require_matplotlib()  # now rather than at the first figure
        self._figures = trainer.global_step // self.every_n_steps
        if not trainer.is_global_zero:  # a checkpoint has those of all ranks, which count once
            self._collected = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        record: Any = getattr(pl_module, "record", None)
        if record is not None:
            self._collected.append(_columns(record, getattr(pl_module, "policy", None), trainer.global_step))
        number = trainer.global_step // self.every_n_steps
        if number == self._figures:
            return
        self._figures = number
        collected = over_ranks(self._collected)  # by every process, whether or not it has any
        self._collected = []
        if collected and trainer.is_global_zero:
            columns = {name: torch.cat([part[name] for part in collected]) for name in collected[0]}
            # Each part is of one step of one process, which has all responses to a prompt.
            prompts = [(of, prompt) for of, part in enumerate(collected) for prompt in part["prompt"].tolist()]
            self._log(trainer, columns, prompts)

    def state_dict(self) -> dict[str, Any]:
        return {"collected": over_ranks(self._collected)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._collected = list(state_dict["collected"])

    def _log(self, trainer: L.Trainer, columns: dict[str, Tensor], prompts: list[tuple[int, int]]) -> None:
        rewards, confidence = columns["reward"], columns["confidence"]
        others = {name: columns[name] for name in CONFIDENCES if name in columns}
        given = advantages_by_algorithm(rewards, confidence, prompts, columns["step"].tolist(), others)
        advantages = {"as trained": columns["as trained"], **given}
        step = trainer.global_step - 1  # as the scalars of this step are counted
        reward_from = threshold(rewards, self.reward_threshold)
        confidence_from = threshold(confidence, self.confidence_threshold)
        types = classify(rewards, confidence, reward_from, confidence_from)
        for logger in trainer.loggers:
            logger.log_metrics({f"train/type/{name}": share for name, share in shares(types).items()}, step=step)
        draw = partial(figure, rewards, confidence, advantages, reward_from, confidence_from)
        add_figure(trainer, "rollouts/response_types", draw, step)


def _columns(record: Any, policy: Any, step: int) -> dict[str, Tensor]:
    """What a step adds, each (B,) on the CPU: reward, confidences, advantage, and what tells prompts and steps apart."""
    columns = {"reward": record.rewards.total, "confidence": record.confidence, "as trained": record.advantages}
    if policy is not None and hasattr(record, "rollout"):
        columns |= {name: taken(policy, record) for name, taken in CONFIDENCES.items()}
    numbers: dict[tuple[str, str], int] = {}
    prompts = [numbers.setdefault((group.task, group.key), len(numbers)) for group in record.groups]
    found = {name: values.detach().float().cpu() for name, values in columns.items()}
    return found | {"prompt": torch.tensor(prompts), "step": torch.full((len(prompts),), step)}


def _of_answer(policy: Any, record: Any) -> Tensor:
    """(B,) the confidence in the answers alone; NaN where it is not known which tokens those are."""
    rollout = record.rollout
    try:
        return token_confidence(rollout.logp, answer_mask(policy, record.responses, rollout.mask))
    except ValueError:
        return rollout.logp.new_full((len(rollout.logp),), torch.nan)


def _geometric(policy: Any, record: Any) -> Tensor:
    """(B,) the confidence from the mean log-probability."""
    return geometric_confidence(record.rollout.logp, record.rollout.mask)


CONFIDENCES = {"answer": _of_answer, "geometric": _geometric}
