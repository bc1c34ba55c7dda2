"""A stopwatch for training steps and their phases, which also watches the memory."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any


class Meter:
    """Seconds of each step and of its phases, and the memory that the steps took above idle.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.steps: list[float] = []
        self.phases: list[Any] = []
        self.idle = 0
        self._inner = 0.0

    def now(self) -> float:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self) -> None:
        if not self.steps:
            self.idle = self._memory("VmRSS")
            self._reset_peak()
        self.phases.append(Counter())
        self._start = self.now()

    def end(self) -> None:
        self.steps.append(self.now() - self._start)

    def clock(self, owner: Any, method: str, phase: str) -> None:
        """Count what a method takes as a phase; a phase inside another counts as itself alone."""
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start, before = self.now(), self._inner
            self._inner = 0.0
            try:
                return inner(*args, **kwargs)
            finally:
                took = self.now() - start
                self.phases[-1][phase] += took - self._inner
                self._inner = before + took

        setattr(owner, method, timed)

    def report(self, warmup: int) -> dict[str, Any]:
        """Medians over the steps after the first `warmup`, and the peak over all."""
        steps, phases = self.steps[warmup:], self.phases[warmup:]
        for step, phase in zip(steps, phases, strict=True):
            phase["rest"] = step - sum(phase.values())
        middle = {name: statistics.median(phase[name] for phase in phases) for name in phases[0]}
        return {"step": statistics.median(steps), "phases": middle, "memory": self._memory("VmHWM") - self.idle}

    def _memory(self, kind: str) -> int:
        """Bytes held now (VmRSS) or at the peak since the last reset (VmHWM)."""
        if self.cuda:
            import torch

            return torch.cuda.memory_allocated() if kind == "VmRSS" else torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(kind))

    def _reset_peak(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
