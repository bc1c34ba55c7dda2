"""Stop or roll back a training whose signals say that the policy collapses."""

from __future__ import annotations

from collections import deque
from functools import wraps
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info

from lightning_sal.samples import Phased


class CollapseGuard(L.Callback):
    """Watch logged scalars and act where the mean of one, over its last `window` values, leaves its limits.

        limits:
          train/confidence: [0.05, 0.98]
          train/response/length: [8, null]
          train/response/malformed: [null, 0.5]
          train/reward/std: [0.01, null]

    "stop" ends the training after the step. "rollback" puts weights, optimizer state and what the module itself keeps in
    checkpoints, as the buffers of algorithm and reward, back to the newest checkpoint from before the window, starts all
    windows anew, and goes on; steps, schedules, learning rate and data are not turned back,
    so what follows is drawn anew. Either says in one line which signal left which limit. A mean that is not a number is
    outside of every limit.

    Rollback reads the files of the trainer's own `ModelCheckpoint`, which must be there, must hold optimizer states, and
    must keep more than the newest, which is often of the window itself: `save_top_k: -1`, or 2 and more with a `monitor`.
    What was saved between a checkpoint and the rollback to it is not used again. Where no checkpoint is left, or after
    `max_rollbacks`, the training stops. Strategies that shard the weights are not supported.

    Only a step that logged a scalar adds to its window, so SFT steps do not repeat the values of the RL step before them.
    Values are averaged over the ranks that logged them, so that all ranks decide alike. Windows and rollbacks are saved in
    checkpoints: a run that goes on decides as it would have decided.

    What it asks of others, and nothing more: the module logs the scalars by `log` or `log_dict`, per step; a batch of
    interleaved training is a `Phased`, whose SFT steps need not log them. For rollback, checkpoints hold tensors and plain
    values alone, as `torch.load(weights_only=True)` reads them. It then adds `train/rollbacks`, their number so far.

    Args:
        limits: Name of a logged scalar -> (lowest, highest) mean that is fine; null for no such limit.
        action: What to do where a mean leaves its limits: stop or rollback.
        window: Number of values that are averaged, >= 1; a shorter history is never judged.
        max_rollbacks: Rollbacks before the training stops after all, >= 1.
    """

    def __init__(
        self,
        limits: dict[str, tuple[float | None, float | None]],
        action: Literal["stop", "rollback"] = "stop",
        window: int = 20,
        max_rollbacks: int = 3,
    ) -> None:
        if not limits or window < 1 or max_rollbacks < 1:
            raise ValueError(
                "CollapseGuard: give limits of one scalar or more; window and max_rollbacks are at least 1"
            )
        for name, (low, high) in limits.items():
            if (low is None and high is None) or (low is not None and high is not None and low > high):
                raise ValueError(f"CollapseGuard: limits [{low}, {high}] of {name}: give one or both, the lower first")
        self.limits, self.action, self.window, self.max_rollbacks = dict(limits), action, window, max_rollbacks
        self.windows: dict[str, deque[tuple[int, float]]] = {name: deque(maxlen=window) for name in limits}
        self.checkpoints: list[str] = []
        self.rollbacks: list[tuple[int, int]] = []  # from the first step back to the second
        self._logged: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note the names that the module logs: Lightning keeps the last value of each, whenever that was logged."""
        if stage != "fit":
            return
        original = pl_module.log

        @wraps(original)
        def log(name: str, *args: Any, **kwargs: Any) -> None:
            self._logged.add(name)
            original(name, *args, **kwargs)

        pl_module.log = log
        self._restore_log = lambda: setattr(pl_module, "log", original)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._restore_log()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.action == "rollback" and isinstance(trainer.strategy, (ModelParallelStrategy, DeepSpeedStrategy)):
            raise ValueError(
                f"CollapseGuard: action rollback puts whole weights back, and {type(trainer.strategy).__name__} keeps "
                "them in shards: use action stop"
            )
        if self.action == "rollback" and not _savers(trainer):
            raise ValueError("CollapseGuard: action rollback needs checkpoints: add a ModelCheckpoint to the callbacks")
        self._steps = 0
        self._note([str(trainer.ckpt_path or "")])

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        # A ModelCheckpoint comes after all other callbacks: what it wrote after the last step is known only now.
        for saver in _savers(trainer):
            self._note([saver.best_model_path, saver.last_model_path, *saver.best_k_models])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, value in self._values(trainer, pl_module).items():
            self.windows[name].append((trainer.global_step, value))
        if not isinstance(batch, Phased) or batch.phase != "sft":
            self._steps += 1
            self._require_all(trainer)
        if (complaint := self._complaint()) is not None:
            name, words = complaint
            words = f"CollapseGuard: {words} at step {trainer.global_step}"
            refusal = (
                "" if self.action == "stop" else self._roll_back(trainer, before=self.windows[name][0][0], why=words)
            )
            if refusal is not None:
                trainer.should_stop = True
                rank_zero_info(f"{words}: training stops{refusal}")
            for window in self.windows.values():
                window.clear()
        if self.action == "rollback":
            pl_module.log("train/rollbacks", float(len(self.rollbacks)))

    def state_dict(self) -> dict[str, Any]:
        windows = {name: list(window) for name, window in self.windows.items()}
        return {"windows": windows, "checkpoints": list(self.checkpoints), "rollbacks": list(self.rollbacks)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, window in self.windows.items():
            window.extend(state_dict["windows"].get(name, ()))
        self.checkpoints, self.rollbacks = list(state_dict["checkpoints"]), list(state_dict["rollbacks"])

    def _require_all(self, trainer: L.Trainer) -> None:
        """Raise once, after as many steps as a window has, where a scalar has not been logged in any of them."""
        missing = [name for name, window in self.windows.items() if not window]
        if missing and self._steps == self.window:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"CollapseGuard: {missing[0]} was not logged in {self.window} steps; logged are {known}")

    def _note(self, paths: list[str]) -> None:
        self.checkpoints += [path for path in dict.fromkeys(paths) if path and path not in self.checkpoints]

    def _values(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
        """What this step logged of the watched scalars, averaged over the ranks that logged it."""
        metrics = trainer.callback_metrics
        logged = self._logged & set(metrics)
        self._logged.clear()
        rows = [(float(metrics[name]), 1.0) if name in logged else (0.0, 0.0) for name in self.limits]
        sums = trainer.strategy.reduce(torch.tensor(rows, device=module.device), reduce_op="sum")
        return {name: total / count for name, (total, count) in zip(self.limits, sums.tolist(), strict=True) if count}

    def _complaint(self) -> tuple[str, str] | None:
        """The first scalar whose mean has left its limits, and what to say of it."""
        for name, (low, high) in self.limits.items():
            window = self.windows[name]
            if len(window) < self.window:
                continue
            mean = fmean(value for _, value in window)
            if (low is None or mean >= low) and (high is None or mean <= high):
                continue
            outside = ", ".join("null" if limit is None else f"{limit:g}" for limit in (low, high))
            return name, f"{name} is {mean:.4g} in the mean of {self.window} steps, outside of [{outside}],"
        return None

    def _roll_back(self, trainer: L.Trainer, before: int, why: str) -> str | None:
        """Go back to the newest checkpoint from before a step; returns why not, where that cannot be."""
        if len(self.rollbacks) == self.max_rollbacks:
            return f" after {self.max_rollbacks} rollbacks"
        newest = self._newest(before) if trainer.is_global_zero else None
        found = trainer.strategy.broadcast(newest)  # the files are judged once, whatever the others see of the folder
        if found is None:
            return f": no checkpoint with optimizer states is left from before step {before}; raise save_top_k"
        step, path = found
        if not trainer.strategy.reduce_boolean_decision(Path(path).is_file()):
            return f": {path} is not seen by all nodes; let them share the folder of checkpoints"
        restore(trainer, torch.load(path, map_location="cpu", weights_only=True))
        self.rollbacks.append((trainer.global_step, step))
        number = f"rollback {len(self.rollbacks)} of {self.max_rollbacks}"
        rank_zero_info(f"{why}: weights and optimizer go back to step {step}, {path} ({number})")
        return None

    def _newest(self, before: int) -> tuple[int, str] | None:
        """Step and path of the newest file that was not given up by an earlier rollback.

        The step is the one in the file, since a path may have been written again.
        """
        usable: list[tuple[int, str]] = []
        for path in filter(lambda path: Path(path).is_file(), self.checkpoints):
            saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            step = saved["global_step"]
            given_up = any(back < step < start for start, back in self.rollbacks)
            if step < before and not given_up and saved.get("optimizer_states"):
                usable.append((step, path))
        return max(usable, default=None)


def restore(trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
    """Put weights, optimizer states, and what the module's `on_load_checkpoint` reads back, and nothing else.

    Learning rate and other settings of an optimizer stay as they are, since its schedule goes on from there.

    Args:
        trainer: Whose strategy holds module and optimizers.
        checkpoint: As `trainer.save_checkpoint` writes it, of this run.
    """
    trainer.lightning_module.on_load_checkpoint(checkpoint)
    optimizers = zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True)
    states = [{**saved, "param_groups": optimizer.state_dict()["param_groups"]} for optimizer, saved in optimizers]
    trainer.strategy.load_model_state_dict(checkpoint, strict=trainer.lightning_module.strict_loading)
    trainer.strategy.load_optimizer_state_dict({"optimizer_states": states})


def _savers(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
