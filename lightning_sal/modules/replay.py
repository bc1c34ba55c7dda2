"""Take a training step again that `lightning_sal.callbacks.FiniteGuard` has saved, and watch losses and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lightning_sal.files.loading import read_tensors
from lightning_sal.internals.trainer import set_step
from lightning_sal.modules.experience import RolloutRecord
from lightning_sal.samples import Batch, ImageGroup, Phased


def read_replay(path: Path) -> dict[str, Any]:
    """What a replay file holds; its keys are listed at `FiniteGuard`.

    Raises:
        ValueError: If it is no such file.
    """
    with torch.serialization.safe_globals([Phased, Batch, ImageGroup]):
        content = read_tensors(path, "replay file")
    if not isinstance(content, dict) or not {"batch", "rng", "state_dict"} <= set(content):
        raise ValueError(f"{path} is not a replay file: FiniteGuard writes them, named step=<n>-rank=<r>.replay")
    return content


def replay(saved: dict[str, Any], module: L.LightningModule, accelerator: str = "auto") -> Observer:
    """Take the saved step once, on one device.

    Sampling draws the numbers that it drew then, if it depends on `global_step`, `global_rank` and torch's generators
    alone and the device is of the same kind. Of several ranks this is one alone: what it divides by counts over all ranks
    is divided by its own, which scales its loss and gradient.

    Args:
        saved: As `read_replay` gives it.
        module: As it was built for the run; its trainable weights and its buffers are replaced.
        accelerator: As for `lightning.Trainer`.
    """
    observer = Observer(saved)
    trainer = L.Trainer(
        **saved["trainer"],
        accelerator=accelerator,
        devices=1,
        max_steps=saved["step"] + 1,
        limit_val_batches=0,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[observer],
    )
    trainer.fit(module, train_dataloaders=_Once(saved["batch"]))
    return observer


class Observer(L.Callback):
    """Puts trainer and module where a saved step began, and notes what happens.

    Args:
        saved: As `read_replay` gives it.

    Attributes:
        lines: A line for each backward pass, and for what the module recorded.
        finite: Whether all losses and gradients were finite.
    """

    def __init__(self, saved: dict[str, Any]) -> None:
        self.saved, self.lines, self.finite = saved, [], True
        self._update, self._pass = 1, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        saved, wanted = self.saved, {name for name, p in pl_module.named_parameters() if p.requires_grad}
        if differing := sorted(wanted ^ set(saved["state_dict"])):
            raise ValueError(
                f"the replay file does not fit this config: {len(differing)} names differ, as {differing[0]}"
            )
        pl_module.load_state_dict(saved["state_dict"], strict=False)
        self.lines += _restore_buffers(dict(pl_module.named_buffers()), saved.get("buffers", {}))
        trainer.strategy.load_optimizer_state_dict(saved)
        set_step(trainer, saved["step"], saved["rank"])

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        torch.set_rng_state(self.saved["rng"]["cpu"])
        if pl_module.device.type == "cuda" and "cuda" in self.saved["rng"]:
            torch.cuda.set_rng_state(self.saved["rng"]["cuda"], pl_module.device)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self._loss = loss.detach().float().item()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pass += 1
        scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler else 1.0
        gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values()).item()
        faulty = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
        faults = (
            f"; gradients of {len(faulty)} of {len(gradients)} weights are not finite, first {faulty[0]}"
            if faulty
            else ""
        )
        numbers = f"loss {self._loss / scale:.6g}, gradient norm so far {norm / scale:.6g}"
        self.lines.append(f"update {self._update}, micro-batch {self._pass}: {numbers}{faults}")
        # A scaler passes over infinite gradients itself, and so does FiniteGuard.
        self.finite &= math.isfinite(self._loss) and (scaler is not None or math.isfinite(norm))

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._update, self._pass = self._update + 1, 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        record: RolloutRecord | None = getattr(pl_module, "record", None)
        self.lines += [] if record is None else _non_finite_of(record)


def _restore_buffers(own: dict[str, Tensor], saved: dict[str, Tensor]) -> Iterator[str]:
    """Put saved buffers in place; yields a line where some are on one side alone, as with another algorithm or reward."""
    for name in own.keys() & saved.keys():
        if own[name].shape != saved[name].shape:
            there, here = tuple(saved[name].shape), tuple(own[name].shape)
            raise ValueError(
                f"the replay file does not fit this config: buffer {name} is {there} in it, and {here} here"
            )
        own[name].copy_(saved[name])
    if differing := sorted(own.keys() ^ saved.keys()):
        yield f"buffers in the file or in the config alone start anew: {len(differing)}, first {differing[0]}"


def _non_finite_of(record: RolloutRecord) -> Iterator[str]:
    """What of a rollout is not finite, and in which samples."""
    rewards = {f"reward {name}": values for name, values in record.rewards.terms.items()}
    columns = {"log-probs": record.rollout.logp, **rewards, "reward": record.rewards.total}
    columns |= {"confidence": record.confidence, "advantages": record.advantages}
    faulty = {name: ~values.isfinite().view(len(values), -1).all(1) for name, values in columns.items()}
    for name, rows in faulty.items():
        if rows.any():
            first = record.groups[int(rows.nonzero()[0])].key
            yield f"{name}: not finite in {int(rows.sum())} of {len(rows)} responses, first that to {first}"
    if fine := [name for name, rows in faulty.items() if not rows.any()]:
        yield f"finite: {', '.join(fine)}"


class _Once:
    """A loader of one batch, as it is."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield self.batch
