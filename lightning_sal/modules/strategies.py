"""What strategies ask of a policy under training: the one file of the modules that touches their private parts.

A module never asks which strategy it runs under. It asks `strategy_of(trainer)`, which answers with one of the classes
below: each says what it refuses, how the policy is made, and where its gradients are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from torch import Tensor, nn

from lightning_sal.internals.trainer import saves_in_shards
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.general.policy import GeneralPolicy
from lightning_sal.policy.make import make_policy, policy_class
from lightning_sal.policy.policy import Policy

_DEEPSPEED_DTYPES = {"32": "float32", "bf16": "bfloat16", "16": "float16"}


class OneDevice:
    """No other rank: nothing is averaged.

    Args:
        trainer: Whose strategy it is.
    """

    averages_by_hand: ClassVar[bool] = False  # Whether the module averages gradients that the strategy leaves alone

    def __init__(self, trainer: L.Trainer) -> None:
        self.trainer: Any = trainer
        self.strategy: Any = trainer.strategy

    def check(self, config: PolicyConfig) -> None:
        """Refuse what would train something else than what is configured.

        Raises:
            ValueError: Of the strategy or the precision; the line says what to take instead.
        """
        if isinstance(self.trainer.precision_plugin, HalfPrecision):
            raise ValueError(
                f"precision {self.trainer.precision} would also sample, reward and measure in half precision: take "
                "bf16-mixed, and model.policy.dtype bfloat16 for frozen weights in half the memory"
            )

    def before_setup(self, module: L.LightningModule, outside: Sequence[str]) -> None:
        """Before the strategy takes the module; `outside` are the names of its parts that are not trained with it."""

    def make_policy(self, config: PolicyConfig, mesh: Any) -> Policy:
        """The policy, whole or in shards over a device mesh."""
        return make_policy(config)

    def before_backward(self) -> None:
        """Before each backward pass."""

    def unsynchronised(self) -> AbstractContextManager[Any]:
        """Inside, a backward pass averages nothing over ranks."""
        return nullcontext()

    def last_backward(self, loss: Tensor, average: Callable[[], None]) -> None:
        """The backward pass that ends an update in the midst of a training step; `average()` averages what it left."""
        with self.unsynchronised():
            self.strategy.backward(loss, None)
        average()


class DataParallel(OneDevice):
    """DDP: the last backward pass of a training step averages, and those in its midst are averaged by hand."""

    def unsynchronised(self) -> AbstractContextManager[Any]:
        return self.strategy.block_backward_sync()


class Shards(OneDevice):
    """FSDP2: it averages gradients of shards, and no one those of weights that it leaves whole."""

    averages_by_hand = True

    def check(self, config: PolicyConfig) -> None:
        super().check(config)
        _refuse_general(config, "FSDP2")
        if self.strategy.device_mesh["tensor_parallel"].size() > 1:
            raise ValueError(
                "ModelParallelStrategy shards here, and splits no layer: set its tensor_parallel_size 1 and "
                f"data_parallel_size {self.trainer.world_size}, as conf/strategy/fsdp.yaml does"
            )
        if saves_in_shards(self.strategy):
            raise ValueError(
                "checkpoints hold what is trained in one file: set save_distributed_checkpoint false in "
                "ModelParallelStrategy, as conf/strategy/fsdp.yaml does"
            )

    def make_policy(self, config: PolicyConfig, mesh: Any) -> Policy:
        from lightning_sal.policy.sharding import ShardedPolicy

        return ShardedPolicy(config, mesh["data_parallel"])


class DeepSpeed(OneDevice):
    """DeepSpeed: it counts backward passes, casts the policy, and in stage 3 cuts up what it is given."""

    def check(self, config: PolicyConfig) -> None:
        super().check(config)
        precision = self.trainer.precision
        dtype = _DEEPSPEED_DTYPES[str(precision).partition("-")[0]]
        if config.dtype != dtype:
            raise ValueError(
                f"DeepSpeed casts the whole policy by precision {precision}: set model.policy.dtype {dtype}, not "
                f"{config.dtype}, or another precision"
            )
        if self.strategy.zero_stage_3:
            _refuse_general(config, "ZeRO stage 3")

    def before_setup(self, module: L.LightningModule, outside: Sequence[str]) -> None:
        from lightning_sal.policy.sharding import hide

        with self.strategy.root_device:  # where Lightning makes a model under most strategies
            module.configure_model()  # now, since stage 3 cuts up what is made later, and leaves nothing to load into
        for name in outside:  # of no concern to it, and in precisions of their own
            hide(module, name, self.strategy.root_device)

    def make_policy(self, config: PolicyConfig, mesh: Any) -> Policy:
        if not self.strategy.zero_stage_3:
            return make_policy(config)
        from lightning_sal.policy.sharding import PartitionedPolicy

        return PartitionedPolicy(config, self.strategy.root_device)

    def before_backward(self) -> None:
        """It expects a forward pass of its own before each."""
        self.strategy.deepspeed_engine.optimizer.clear_backward_seen_flag()

    @contextmanager
    def unsynchronised(self) -> Iterator[None]:
        engine = self.strategy.deepspeed_engine
        engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            engine.set_gradient_accumulation_boundary(True)

    def last_backward(self, loss: Tensor, average: Callable[[], None]) -> None:
        self.strategy.backward(loss, None)


_KINDS: dict[type, type[OneDevice]] = {
    SingleDeviceStrategy: OneDevice,
    DDPStrategy: DataParallel,
    ModelParallelStrategy: Shards,
    DeepSpeedStrategy: DeepSpeed,
}


def _refuse_general(config: PolicyConfig, strategy: str) -> None:
    if policy_class(config) is GeneralPolicy:
        raise ValueError(
            f"policy model '{config.model}' takes the general path, which {strategy} cannot cut up: take one device or "
            "conf/strategy/ddp.yaml, with adapters (policy.lora) on frozen weights in bfloat16 or 4 bits"
        )


def strategy_of(trainer: L.Trainer) -> OneDevice:
    """What the strategy of a trainer asks of a policy.

    Raises:
        ValueError: If it is none of those that are known.
    """
    for kind, ours in reversed(_KINDS.items()):  # DeepSpeed's is a DDPStrategy too
        if isinstance(trainer.strategy, kind):
            return ours(trainer)
    raise ValueError(
        f"{type(trainer.strategy).__name__} is not supported: take ddp, or one of conf/strategy/ for weights in shards"
    )


def whole(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Those that stand on each rank as a whole, not in shards, whose gradients FSDP2 averages itself."""
    return [p for p in parameters if type(p) is nn.Parameter]


def average_gradients(parameters: Sequence[Tensor], strategy: Strategy) -> None:
    """What DDP does in the last backward pass, by hand."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    mean: Any = strategy.reduce(flat, reduce_op="mean")
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
