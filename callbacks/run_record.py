"""What a run achieved and what it cost, on disk, for tables over many runs."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L

from lightning_sal.callbacks.budget import sampled
from lightning_sal.callbacks.memory import peak_memory
from lightning_sal.evaluation.comparison import evaluate, write_arms
from lightning_sal.files.writing import whole
from lightning_sal.samples import Phased


class RunRecord(L.Callback):
    """Write three files once a fit has ended, which `lightning-sal ablate` makes its table and plot of.

    - `samples.jsonl`: how the greedy response to each held-out sample did.
    - `curve.jsonl`: for each RL step its number, wall time since the start in seconds, mean reward, and responses.
    - `run.json`: number and median seconds of RL and of SFT steps, peak memory in bytes, prompts and responses that were
      sampled, seconds in all.

    What it asks of others: the module is a `lightning_sal.modules` module (or offers its `evaluate`, and after an RL step a
    `record` with `groups` and `rewards.total`); the datamodule gives annotated samples by `val_dataloader()`, or for
    `split: test` by `test_dataloader()`, within a fit. One process only.

    Args:
        folder: Where to write; null takes the trainer's `default_root_dir`.
        split: The held-out samples, val or test.
    """

    def __init__(self, folder: Path | None = None, split: Literal["val", "test"] = "val") -> None:
        self.folder, self.split = folder, split
        self.curve: list[dict[str, float]] = []
        self.seconds: dict[str, list[float]] = {"rl": [], "sft": []}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.folder = Path(trainer.default_root_dir) if self.folder is None else self.folder
        if trainer.world_size > 1:
            raise ValueError("RunRecord compares runs of one process: use trainer.devices=1, or leave it out")
        if sum(isinstance(callback, RunRecord) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ValueError(
                "there are two RunRecords: leave it out of the config, `lightning-sal ablate` adds its own"
            )
        if (self.folder / "run.json").exists():
            raise FileExistsError(
                f"{self.folder / 'run.json'} is there already, of an earlier run: name another folder"
            )
        self._began = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now, record = time.perf_counter(), getattr(pl_module, "record", None)
        sft = record is None or (isinstance(batch, Phased) and batch.phase == "sft")
        self.seconds["sft" if sft else "rl"].append(now - self._started)
        if record is not None:
            prompts, responses = sampled(record)
            line = {
                "step": trainer.global_step,
                "seconds": now - self._began,
                "reward": record.rewards.total.mean().item(),
            }
            self.curve.append({**line, "responses": responses, "prompts": prompts})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        seconds, memory = time.perf_counter() - self._began, peak_memory(pl_module.device)
        samples, _ = evaluate(pl_module, getattr(data, f"{self.split}_dataloader")())
        folder: Any = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_arms({type(pl_module).__name__: samples}, folder / "samples.jsonl")
        with whole(folder / "curve.jsonl") as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in self.curve))
        steps = {
            f"{phase}_{name}": of(found) if found else None
            for phase, found in self.seconds.items()
            for name, of in (("steps", len), ("seconds", statistics.median))
        }
        totals = {name: sum(line[name] for line in self.curve) for name in ("prompts", "responses")}
        run = {**steps, **totals, "memory": memory, "seconds": seconds}
        with whole(folder / "run.json") as part:  # last, since it says that the run is whole
            part.write_text(json.dumps(run, indent=1) + "\n")
