"""One gradient from many micro-batches and ranks: backward passes, what they average when, and optimisation steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_sal.modules.checkpoints import FineTuningModule
from lightning_sal.modules.strategies import OneDevice, average_gradients, strategy_of, whole


class AccumulatingModule(FineTuningModule):
    """A module whose training step is many backward passes, of losses that are divided by counts over the whole step.

    Args:
        micro_batch_size: Rows that go through a forward and backward pass at once, >= 1; None takes all of a step.
        **kwargs: As for `FineTuningModule`.
    """

    def __init__(self, micro_batch_size: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.micro_batch_size = micro_batch_size
        self._averages_after_backward = True

    @property
    def strategy(self) -> OneDevice:
        """What the trainer's strategy asks of the policy."""
        return strategy_of(self.trainer)

    def on_fit_start(self) -> None:
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                "accumulate_grad_batches must be 1: token counts would be averaged wrongly over unequal batches; raise "
                "data.batch_size and set model.micro_batch_size, which gives the exact gradient"
            )
        if self.strategy.averages_by_hand:  # the others do so themselves
            for parameter in self._whole_trainable():
                torch.distributed.broadcast(parameter.detach(), src=0)

    def log(self, name: str, value: Any, *args: Any, sync_dist: bool = False, **kwargs: Any) -> None:
        """As Lightning's; but a number of the host stays there, where it would be moved to the device and read again."""
        if isinstance(value, (int, float)) and not sync_dist:
            value = torch.tensor(value, dtype=torch.get_default_dtype())
        super().log(name, value, *args, sync_dist=sync_dist, **kwargs)

    def micro_batches(self, rows: int) -> list[slice]:
        """The rows of a step in slices of at most `micro_batch_size`."""
        size = self.micro_batch_size or rows
        return [slice(start, start + size) for start in range(0, rows, size)]

    def accumulate(self, losses: Iterable[Tensor], count: int) -> Tensor:
        """Back-propagate all losses of a step but the last, which Lightning propagates itself.

        Each loss is already divided by counts over the whole step and all ranks; since data-parallel strategies average
        gradients over ranks, it is multiplied by their number.

        Args:
            losses: One a micro-batch, computed when its turn comes.
            count: How many there are, >= 1.

        Returns:
            The last loss; `train/loss` is logged as the sum of all.
        """
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()
        world, strategy, done, pending = self.trainer.world_size, self.strategy, 0.0, None
        for number, loss in enumerate(losses, 1):
            strategy.before_backward()
            if number < count:  # at once, so that no two micro-batches hold their activations
                self._backward_locally(loss * world)
                done = done + loss.detach() * world
            else:
                pending = loss * world
        if pending is None:
            raise ValueError("a training step got an empty batch: is the data folder empty?")
        self.log("train/loss", (pending.detach() + done), prog_bar=True, sync_dist=True)
        return pending

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Gradients are cleared at the start of a step by `accumulate`, not between its micro-batches."""

    def extra_optimizer_step(self, loss: Tensor) -> None:
        """An optimisation step in the midst of a training step, clipped like the one that Lightning does at its end.

        Args:
            loss: What `accumulate` returned.
        """

        def closure() -> Tensor:
            with self._averaging_put_off():
                self.strategy.last_backward(loss, self._average_gradients)
            return loss  # without a loss, 16-mixed precision and DeepSpeed would take the step for skipped

        self.optimizers().step(closure)  # type: ignore[union-attr]

    def all_reduce(self, value: Tensor, operation: Literal["sum", "max"] = "sum") -> Tensor:
        """The sum, or the largest, of a tensor over all ranks."""
        return self.trainer.strategy.reduce(value, reduce_op=operation)  # type: ignore[return-value]

    def reduce_on_host(self, values: Tensor, operation: Literal["sum", "max"] = "sum") -> Tensor:
        """The sum, or the largest, over all ranks of numbers that are on the CPU, and stay there where no other rank is."""
        if self.trainer.world_size == 1:
            return values
        return self.all_reduce(values.to(self.device), operation).cpu()

    def any_rank(self, condition: bool) -> bool:
        """Whether a condition holds on any rank."""
        return bool(self.max_over_ranks(int(condition)))

    def max_over_ranks(self, count: int) -> int:
        """The largest of a count over all ranks."""
        return int(self.reduce_on_host(torch.tensor(count), "max"))

    def on_after_backward(self) -> None:
        """Average gradients of weights that FSDP2 left whole, since no one else does, before anyone looks at them."""
        if self._averages_after_backward and self.strategy.averages_by_hand:
            self._average_gradients()

    def _backward_locally(self, loss: Tensor) -> None:
        """Back-propagate a loss that is not the last of an update: what can be averaged later is not averaged now."""
        with self._averaging_put_off(), self.strategy.unsynchronised():
            self.trainer.strategy.backward(loss, None)

    @contextmanager
    def _averaging_put_off(self) -> Iterator[None]:
        self._averages_after_backward = False
        try:
            yield
        finally:
            self._averages_after_backward = True

    def _average_gradients(self) -> None:
        average_gradients(self._whole_trainable(), self.trainer.strategy)

    def _whole_trainable(self) -> list[Tensor]:
        """What is trained and stands on each rank as a whole, not in shards, whose gradients FSDP2 averages itself."""
        return whole(list(self.trainable().values()))


def grouped_micro_batches(
    prompts: Sequence[int], responses: int, size: int | None
) -> list[tuple[list[int], list[int]]]:
    """Prompts and rows of each micro-batch of at most `size` responses, each prompt with equally many of its responses.

    Args:
        prompts: Numbers of the prompts; prompt n has the rows n G .. n G + G - 1.
        responses: G.
        size: Most responses at once, or None for all.
    """
    size = size or max(1, len(prompts)) * responses
    at_once = max(1, size // responses)
    chunks = [list(prompts[start : start + at_once]) for start in range(0, len(prompts), at_once)]
    slots = [range(start, min(start + size, responses)) for start in range(0, responses, size)]
    return [(chunk, [n * responses + g for n in chunk for g in slot]) for chunk in chunks for slot in slots]
