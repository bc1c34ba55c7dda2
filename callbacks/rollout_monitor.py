"""What a training costs and how large its updates are, as scalars and histograms."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_sal.callbacks.memory import peak_memory
from lightning_sal.samples import Phased


class RolloutMonitor(L.Callback):
    """Log gradient norm, seconds, phase and memory of each training step, and histograms of advantages.

    | name | what |
    |---|---|
    | `train/grad_norm` | L2 norm of the gradients of all parameters of the optimizer, before clipping |
    | `train/seconds/step` | wall time from a batch to the end of its optimisation, mean over the last steps |
    | `train/phase/sft` | share of SFT steps among the last steps, in [0, 1] |
    | `train/memory_gb` | peak memory so far in 10^9 bytes: allocated on the GPU, or resident in the process |
    | `train/advantage/histogram` | advantages of all steps since the last histogram (TensorBoard only) |

    "The last steps" are as many as lie between two entries of the log, `log_every_n_steps`: the value of a single step
    would show only one phase where the period of the log is a multiple of that of the phases. Values are those of the
    first process; where a strategy shards gradients, the norm is that of its shard.

    What is collected for the next entry is saved in checkpoints: a run that goes on logs what it would have logged.

    What it asks of others, and nothing more: a batch of interleaved training is a `Phased` (any other counts as RL);
    after a step the module's `record`, where it has one, is None or has `advantages` (B,).

    Args:
        histogram_every_n_steps: Optimisation steps from one histogram to the next, >= 1.
    """

    def __init__(self, histogram_every_n_steps: int = 25) -> None:
        if histogram_every_n_steps < 1:
            raise ValueError("RolloutMonitor: histogram_every_n_steps must be at least 1")
        self.histogram_every_n_steps = histogram_every_n_steps
        self._seconds: deque[float] = deque()
        self._sft: deque[bool] = deque()
        self._advantages: list[Tensor] = []
        self._kept: dict[str, list[Any]] = {"seconds": [], "sft": []}  # of the run that this one goes on from

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        window = max(1, getattr(trainer, "log_every_n_steps", 1))  # type: ignore[attr-defined]
        self._seconds = deque(self._kept["seconds"], maxlen=window)
        self._sft = deque(self._kept["sft"], maxlen=window)
        self._kept = {"seconds": [], "sft": []}
        self._histograms = trainer.global_step // self.histogram_every_n_steps

    def on_train_batch_start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        # Lightning clips after this hook.
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        pl_module.log("train/grad_norm", norm)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seconds.append(time.perf_counter() - self._started)
        self._sft.append(isinstance(batch, Phased) and batch.phase == "sft")
        values = {
            "train/seconds/step": sum(self._seconds) / len(self._seconds),
            "train/phase/sft": sum(self._sft) / len(self._sft),
            "train/memory_gb": peak_memory(pl_module.device) / 1e9,
        }
        pl_module.log_dict(values)
        self._collect(trainer, getattr(pl_module, "record", None))

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": list(self._seconds), "sft": list(self._sft), "advantages": list(self._advantages)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept, self._advantages = state_dict, list(state_dict["advantages"])

    def _collect(self, trainer: L.Trainer, record: Any) -> None:
        if record is not None:
            self._advantages.append(record.advantages.detach().float().cpu())
        number = trainer.global_step // self.histogram_every_n_steps
        if number == self._histograms or not self._advantages:
            return
        self._histograms = number
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                values = torch.cat(self._advantages)
                logger.experiment.add_histogram("train/advantage/histogram", values, trainer.global_step - 1)
        self._advantages.clear()
