"""Interleaved SFT: the schedule that alternates RL and SFT steps in place of a KL penalty (ISR)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import wraps
from itertools import count
from typing import Any

import lightning as L
from lightning.fabric.utilities.data import sized_len

from lightning_sal.samples import Phased


class InterleavedSFT(L.Callback):
    """Alternate RL and SFT steps within one `fit`.

    Two schedules: with `period: P` every P-th step is SFT; with `rl_steps: R, sft_steps: S` each R RL steps are followed
    by S SFT steps. `warmup_sft` SFT steps come before either, so that one `fit` can run both stages.

    What it asks of others, and nothing more:

    - the datamodule's (or the module's) `train_dataloader()` returns `{"rl": loader, "sft": loader}`, iterables of batches;
    - the module's `training_step` takes `Phased(phase, batch)`, a tuple whose phase is "rl" or "sft", in place of a batch;
    - with several processes, each loader gives each of them samples of its own: Lightning, which sees one loader around
      both, puts no `DistributedSampler` into them.

    Only the loader whose turn it is is asked for a batch: the other one costs no data and no loading, and a loader that
    never has its turn is never started. A loader that ends is started again. An epoch has as many steps as the RL loader
    has batches, and no end where that loader has no length. The position in the schedule is saved in checkpoints.

    Args:
        period: P >= 2, or null.
        rl_steps: R >= 1 RL steps of a cycle; with `sft_steps`, not with `period`.
        sft_steps: S >= 0 SFT steps of a cycle.
        warmup_sft: SFT steps before the schedule starts, >= 0.
    """

    def __init__(
        self,
        period: int | None = None,
        rl_steps: int | None = None,
        sft_steps: int | None = None,
        warmup_sft: int = 0,
    ) -> None:
        if (period is None) == (rl_steps is None or sft_steps is None):
            raise ValueError("InterleavedSFT: give either `period`, or both `rl_steps` and `sft_steps`")
        if period is not None:
            if period < 2:
                raise ValueError(
                    f"InterleavedSFT: period {period} must be at least 2; for SFT alone use the SFT module"
                )
            rl_steps, sft_steps = period - 1, 1
        if rl_steps is None or sft_steps is None or rl_steps < 1 or sft_steps < 0 or warmup_sft < 0:
            raise ValueError("InterleavedSFT: rl_steps must be at least 1, sft_steps and warmup_sft at least 0")
        self.rl_steps, self.sft_steps, self.warmup_sft = rl_steps, sft_steps, warmup_sft
        self.step = 0

    def phase(self, step: int) -> str:
        """The phase, "rl" or "sft", of step 0, 1, 2, ..."""
        if step < self.warmup_sft:
            return "sft"
        at = (step - self.warmup_sft) % (self.rl_steps + self.sft_steps)
        return "rl" if at < self.rl_steps else "sft"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        source: Any = getattr(trainer, "datamodule", None) or pl_module
        original = source.train_dataloader

        @wraps(original)
        def interleaved() -> _InterleavedLoader:
            loaders = original()
            if not isinstance(loaders, dict) or set(loaders) != {"rl", "sft"}:
                raise ValueError(
                    f"InterleavedSFT: {type(source).__name__}.train_dataloader() must return {{'rl': ..., 'sft': ...}}"
                )
            return _InterleavedLoader(self, loaders)

        source.train_dataloader = interleaved
        self._restore = lambda: setattr(source, "train_dataloader", original)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._restore()

    def on_train_batch_end(self, *_: Any) -> None:
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]


class _InterleavedLoader:
    """Batches of both loaders in the order of the schedule, each drawn when its turn comes."""

    def __init__(self, callback: InterleavedSFT, loaders: dict[str, Iterable[Any]]) -> None:
        self.callback, self.loaders = callback, loaders
        self._iterators: dict[str, Iterator[Any]] = {}

    def __len__(self) -> int:
        return len(self.loaders["rl"])  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Phased]:
        start, length = self.callback.step, sized_len(self)
        for step in count(start) if length is None else range(start, start + length):
            phase = self.callback.phase(step)
            yield Phased(phase, self._next(phase))

    def state_dict(self) -> dict[str, Any]:
        """The place in the schedule, which Lightning asks of a loader that can go on within an epoch."""
        return self.callback.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.callback.load_state_dict(state_dict)

    def _next(self, phase: str) -> Any:
        if phase in self._iterators:
            try:
                return next(self._iterators[phase])
            except StopIteration:
                pass
        self._iterators[phase] = iter(self.loaders[phase])
        try:
            return next(self._iterators[phase])
        except StopIteration:
            raise ValueError(f"InterleavedSFT: the {phase} loader has no batches; is its data empty?") from None
