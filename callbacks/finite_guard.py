"""Stop at the first loss or gradient that is not finite, with all that is needed to look at it again."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_sal.callbacks.ranks import over_ranks
from lightning_sal.files.writing import whole

_NUMBER = re.compile(r"-rank=\d+(?:-(\d+))?\.replay$")


class FiniteGuard(L.Callback):
    """Check loss and gradient before each optimizer step; where one is NaN or infinite, save the step and stop.

    The weights are then those from before the step. Each rank writes `<folder>/step=<n>-rank=<r>.replay`, and
    `lightning-sal replay FILE` takes the step again and says what was not finite. A file holds

    | key | what |
    |---|---|
    | `step`, `rank`, `world_size`, `device`, `seed` | where it was taken; `seed` is that of `seed_everything` or None |
    | `batch` | the batch as the module got it, on the CPU |
    | `state_dict`, `optimizer_states` | trainable weights and optimizer states before the step |
    | `buffers` | all buffers of the module at the start of the step, so those of algorithm and reward too |
    | `rng` | states of torch's generators at the start of the step |
    | `trainer` | precision and gradient clipping |
    | `config` | YAML of the run, where it was started from the command line; else None |

    `torch.load(weights_only=True)` reads it, inside `torch.serialization.safe_globals([Phased, Batch, ImageGroup])` where
    the batch consists of these.

    What it costs: one host sync an optimizer step, and where there are several ranks two numbers gathered from each. At
    the start of every step the module's buffers are copied where they are. A module whose `updates_per_rollout` is above
    1 changes its weights within a step: then weights and optimizer states are copied to the CPU at the start as well,
    three numbers in float32 a trained weight with Adam, which is little for adapters and much where the whole model is
    trained.

    What it asks of others, and nothing more: automatic optimization, or steps and backward passes through the trainer's
    strategy; a batch that consists of tensors, numbers, strings and the containers above; ranks that all hold the whole
    weights. Under 16-mixed precision the loss alone is checked: there its scaler passes over infinite gradients itself.

    Args:
        folder: Where replay files are written; existing ones are kept. Nodes that do not share it have one each.
    """

    def __init__(self, folder: Path = Path("runs/replay")) -> None:
        self.folder = Path(folder)
        self._start: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(trainer.strategy, (ModelParallelStrategy, DeepSpeedStrategy)):
            raise ValueError(
                f"FiniteGuard: a replay file holds whole weights, and {type(trainer.strategy).__name__} keeps them in "
                "shards: take it out of trainer.callbacks; trainer.detect_anomaly names an operation that gives NaN"
            )

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any) -> None:
        self._batch = batch
        self._loss = torch.zeros((), device=pl_module.device)
        self._rng = {"cpu": torch.get_rng_state()}
        if pl_module.device.type == "cuda":
            self._rng["cuda"] = torch.cuda.get_rng_state(pl_module.device)
        several = getattr(pl_module, "updates_per_rollout", 1) > 1
        # Of the forward pass that a step fails in, the buffers have seen some already, and of the update nothing.
        self._buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}
        self._start = state_before(trainer) if several else {}

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self._loss = self._loss + loss.detach().float()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # Gathered, since the loss is that of each rank alone and all must stop at the same step.
        gathered: Any = pl_module.all_gather(torch.stack([self._loss, norm.to(self._loss)]))
        losses, norms = gathered.view(-1, 2).T.tolist()
        self._loss = torch.zeros_like(self._loss)
        at_fault = [rank for rank, loss in enumerate(losses) if not math.isfinite(loss)]
        if not at_fault and getattr(trainer.precision_plugin, "scaler", None) is None:
            at_fault = [rank for rank, norm in enumerate(norms) if not math.isfinite(norm)]
        if not at_fault:
            return
        paths = self._save(trainer, pl_module)
        rank = at_fault[0]
        raise ValueError(
            f"FiniteGuard: step {trainer.global_step}, rank {rank}: loss {losses[rank]:.4g}, gradient norm "
            f"{norms[rank]:.4g}: stopped before the update; the batch is saved: lightning-sal replay {paths[rank]}"
        )

    def on_train_batch_end(self, *_: Any) -> None:
        self._batch, self._buffers, self._start = None, {}, {}

    def _save(self, trainer: L.Trainer, module: L.LightningModule) -> list[Path]:
        """Write the file of this rank; returns those of all."""
        content = {
            "step": trainer.global_step,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "device": module.device.type,
            "seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
            "batch": move_data_to_device(self._batch, "cpu"),
            **(self._start or state_before(trainer)),
            "buffers": move_data_to_device(self._buffers, "cpu"),
            "rng": self._rng,
            "trainer": {
                "precision": trainer.precision,
                "gradient_clip_val": trainer.gradient_clip_val,
                "gradient_clip_algorithm": trainer.gradient_clip_algorithm
                and str(trainer.gradient_clip_algorithm.value),
            },
            "config": _config(trainer),
        }
        suffix = self._free_suffix(trainer)
        paths = [self.folder / _name(trainer, rank, suffix) for rank in range(trainer.world_size)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(paths[trainer.global_rank]) as part, part.open("wb") as file:
            torch.save(content, file)
        trainer.strategy.barrier("replay files written")  # the first process to stop may end the others
        return paths

    def _free_suffix(self, trainer: L.Trainer) -> str:
        """What file names of all ranks end in: a number where an earlier run left such a name on any node."""
        own = _name(trainer, trainer.global_rank, "*")
        taken = [int(number or 1) for path in self.folder.glob(own) for number in _NUMBER.findall(path.name)]
        last = max(over_ranks(taken), default=0)
        return f"-{last + 1}" if last else ""


def _name(trainer: L.Trainer, rank: int, suffix: str) -> str:
    return f"step={trainer.global_step}-rank={rank}{suffix}.replay"


def state_before(trainer: L.Trainer) -> dict[str, Any]:
    """Copies on the CPU of the trainable weights, `state_dict`, and of the states of all optimizers, `optimizer_states`."""
    weights = {n: p.detach() for n, p in trainer.lightning_module.named_parameters() if p.requires_grad}
    state = {
        "state_dict": weights,
        "optimizer_states": [trainer.strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers],
    }
    return apply_to_collection(state, Tensor, lambda value: value.detach().to("cpu", copy=True))


def _config(trainer: L.Trainer) -> str | None:
    """The YAML of a run that LightningCLI started, as it is written beside the logs."""
    cli = sys.modules.get("lightning.pytorch.cli")  # slow to import, and loaded wherever its callback is in use
    for callback in trainer.callbacks if cli else ():  # type: ignore[attr-defined]
        if isinstance(callback, cli.SaveConfigCallback):  # type: ignore[union-attr]
            return callback.parser.dump(callback.config, skip_unset=False)
    return None
