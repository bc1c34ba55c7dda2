"""A budget of prompts, responses or time, so that arms of an ablation are compared at equal cost."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_sal.callbacks.interleaved_sft import InterleavedSFT


class Budget(L.Callback):
    """End a training once it has spent a number of prompts, of responses, or of seconds.

    Prompts and responses are those that RL steps sampled, over all ranks, with those that dynamic sampling drops. The SFT
    steps of `InterleavedSFT` that follow the last RL step are still taken, so that all runs end at the same place of their
    schedule. A training of SFT alone samples nothing: of prompts and responses it spends none, and ends by `max_steps`.
    Seconds are wall time since training began, without validation; the step that spends the last one is the last.

    What was spent is saved in checkpoints, so a run that goes on has what is left. Give the trainer `max_steps: -1` and
    `max_epochs: -1`, or bounds that the budget comes before.

    What it asks of others, and nothing more: after an RL step the module has a `record` with `groups`, one for each
    response, and after an SFT step none.

    Args:
        prompts: Prompts to sample, >= 1, or null.
        responses: Responses to sample, >= 1, or null.
        seconds: Seconds to train, > 0, or null; exactly one of the three is given.
    """

    def __init__(self, prompts: int | None = None, responses: int | None = None, seconds: float | None = None) -> None:
        given = {"prompts": prompts, "responses": responses, "seconds": seconds}
        limits = [(unit, limit) for unit, limit in given.items() if limit is not None]
        if len(limits) != 1 or limits[0][1] <= 0:
            raise ValueError("Budget: give exactly one of prompts, responses and seconds, above 0")
        self.unit, self.limit = limits[0]
        self.spent: dict[str, float] = {"prompts": 0, "responses": 0, "seconds": 0.0}
        self._mark: float | None = None  # of the time that is counted

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        endless = trainer.max_steps == -1 and trainer.max_epochs == -1
        if endless and self.unit != "seconds" and not hasattr(pl_module, "record"):
            raise ValueError(f"Budget: {type(pl_module).__name__} samples no {self.unit}, so set trainer.max_steps")
        self._mark = time.perf_counter()
        self._stop_if_spent(trainer, _phase(trainer, ahead=0))  # as a run that went on from its last checkpoint

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._next = _phase(trainer, ahead=1)  # here, where it does not depend on the order of callbacks

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._count_time()
        if (record := getattr(pl_module, "record", None)) is not None:
            own = torch.tensor(sampled(record), dtype=torch.float32, device=pl_module.device)
            prompts, responses = trainer.strategy.reduce(own, reduce_op="sum").tolist()
            self.spent["prompts"] += int(prompts)
            self.spent["responses"] += int(responses)
        self._stop_if_spent(trainer, self._next)

    def on_validation_start(self, *_: Any) -> None:
        self._count_time()

    def on_validation_end(self, *_: Any) -> None:
        self._mark = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"spent": dict(self.spent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spent = dict(state_dict["spent"])

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.spent["seconds"] += 0.0 if self._mark is None else now - self._mark
        self._mark = now

    def _stop_if_spent(self, trainer: L.Trainer, phase: str) -> None:
        """Stop where the budget is spent and the next step is one that would exceed it."""
        spent = self.spent[self.unit] >= self.limit and (self.unit == "seconds" or phase == "rl")
        if trainer.strategy.reduce_boolean_decision(spent, all=False):  # the clocks of ranks differ
            trainer.should_stop = True
            rank_zero_info(
                f"Budget: {self.spent[self.unit]:.0f} of {self.limit:g} {self.unit} are spent: training stops"
            )


def sampled(record: Any) -> tuple[int, int]:
    """Prompts and responses of an RL step on this rank."""
    return len({id(group) for group in record.groups}), len(record.groups)


def _phase(trainer: Any, ahead: int) -> str:
    """The phase of the step so many after the one that comes or is going on; "rl" where there is no schedule."""
    schedules = [callback for callback in trainer.callbacks if isinstance(callback, InterleavedSFT)]
    return schedules[0].phase(schedules[0].step + ahead) if schedules else "rl"
