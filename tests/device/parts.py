"""What the tests on the pretended accelerator share: Lightning's side of it, and small modules, data and trainers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry

from lightning_sal.datamodules import ScenesDataModule
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.rewards.terms import Response, RewardTerm, Scores
from tests.device import pretend
from tests.device.counting import counting

WHOLE = 56  # response tokens that hold a whole answer of the embedded policies
PART = 12  # that hold the beginning of one


class PretendAccelerator(Accelerator):
    """The accelerator of a Trainer: `accelerator="pretend", strategy="pretend"` once `register` was called."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [pretend.device()]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return pretend.NAME


class Spread(RewardTerm):
    """A term on the device, by which hardly two responses are worth the same."""

    name = "spread"

    def forward(self, responses: Sequence[Response]) -> Scores:
        values = [sum(map(ord, item.text)) % 97 / 97 for item in responses]
        return Scores(torch.tensor(values, device=pretend.device()), (None,) * len(responses))


class OnDevice(L.Callback):
    """Sees to it that steps are done there."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        assert outputs["loss"].device == pretend.device()
        assert {weight.device for weight in pl_module.parameters()} == {pretend.device()}


class Counting(L.Callback):
    """Counts what the last of several steps costs, all that is logged of it included; the others warm up.

    Args:
        steps: Of the run.
    """

    def __init__(self, steps: int = 2) -> None:
        self.steps, self._inside = steps, ExitStack()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, number: int) -> None:
        if number == self.steps - 1:
            self.counts = self._inside.enter_context(counting())

    def on_train_end(self, *_: Any) -> None:
        self._inside.close()


def register() -> None:
    """Make the accelerator known to Lightning, by name."""
    AcceleratorRegistry.register(pretend.NAME, PretendAccelerator)
    StrategyRegistry.register(pretend.NAME, SingleDeviceStrategy, device=pretend.device())


def trainer(folder: Path, *, mixed: bool = False, **options: Any) -> L.Trainer:
    """A Trainer of one step on the device, quiet unless told otherwise; `mixed` is bf16-mixed precision."""
    if mixed:  # by name, Lightning makes it for CUDA
        options["plugins"] = [MixedPrecision("bf16-mixed", pretend.NAME)]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    options["callbacks"] = [*options.get("callbacks", ()), OnDevice()]
    here = {"accelerator": pretend.NAME, "strategy": pretend.NAME, "default_root_dir": folder}
    return L.Trainer(**{**here, **quiet, "max_steps": 1, "limit_val_batches": 0, "log_every_n_steps": 1, **options})


def module(kind: type, model: str = "tiny-early", checkpointing: bool = False, **options: Any) -> Any:
    """A module with adapters and the embedded segmenter."""
    policy = PolicyConfig(model, lora=LoRA(rank=4), gradient_checkpointing=checkpointing)
    return kind(**{"policy": policy, "max_new_tokens": PART, "micro_batch_size": 4, **options})


def scenes(**options: Any) -> ScenesDataModule:
    """A few scenes of all tasks."""
    sizes = {"batch_size": 3, "steps_per_epoch": 4, "annotated": 6, "mistakes": 0, "val_size": 5, "test_size": 4}
    sizes["tasks"] = {"sod": 2, "sis": 2, "cosod": 1}  # of which each comes among so few
    return ScenesDataModule(**{**sizes, **options})
