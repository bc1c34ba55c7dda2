"""Steps captured as CUDA graphs, so that a step costs the device's time and not the host's.

A step of a 7B is some 400 kernels; started one by one they take longer than the device needs for them. A graph starts them
at once. It belongs to one shape and to the buffers that it was captured on, so both are kept from rollout to rollout, those
used last. The first steps of a shape run one kernel at a time, which also warms up what must not begin in a capture.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from lightning_sal.policy.decoding.state import State

_KEPT = 2  # Shapes whose buffers and graphs stay: that of training and that of evaluation
_WARM_UP = 2  # Steps before a capture


class Stepper(Protocol):
    """Where the state of a rollout comes from, and how its steps are done."""

    def mode(self) -> AbstractContextManager[Any]:
        """In which a rollout is made."""
        ...

    def state(self, key: Any, make: Callable[[], State]) -> State:
        """A state of a kind, new or used before."""
        ...

    def advance(self, state: State, reach: int) -> None:
        """One step, which looks at so many tokens of each response."""
        ...


class Eager:
    """Each step kernel by kernel, each rollout on buffers of its own."""

    def mode(self) -> AbstractContextManager[Any]:
        """See `Stepper.mode`: nothing of it is kept, so nothing is counted for gradients, which costs a sixth of a step."""
        return torch.inference_mode()

    def state(self, key: Any, make: Callable[[], State]) -> State:
        """See `Stepper.state`."""
        return make()

    def advance(self, state: State, reach: int) -> None:
        """See `Stepper.advance`."""
        state.memory.look_at(reach)
        state.advance()


class Graphs:
    """Captured steps by shape and reach.

    Args:
        capture: Takes a step without doing it and gives what does it.
    """

    def __init__(self, capture: Callable[[Callable[[], None]], Callable[[], None]] | None = None) -> None:
        self.capture = Capture() if capture is None else capture
        self.states: OrderedDict[Any, State] = OrderedDict()
        self.steps: dict[tuple[Any, int], int | Callable[[], None]] = {}  # how often done, then what does it
        self.key: Any = None

    def mode(self) -> AbstractContextManager[Any]:
        """See `Stepper.mode`."""
        return torch.no_grad()

    def state(self, key: Any, make: Callable[[], State]) -> State:
        """See `Stepper.state`."""
        if key not in self.states:
            while len(self.states) >= _KEPT:
                old, _ = self.states.popitem(last=False)
                self.steps = {each: step for each, step in self.steps.items() if each[0] != old}
            with torch.inference_mode(False), torch.no_grad():  # it outlives the mode of now
                self.states[key] = make()
        self.states.move_to_end(key)
        self.key = key
        return self.states[key]

    def advance(self, state: State, reach: int) -> None:
        """See `Stepper.advance`."""
        state.memory.look_at(reach)
        which = (self.key, reach)
        step = self.steps.get(which, 0)
        if isinstance(step, int) and step < _WARM_UP:
            state.advance()
            self.steps[which] = step + 1
            return
        if isinstance(step, int):
            step = self.steps[which] = self.capture(state.advance)
        step()


class Capture:
    """Captures on the current CUDA device; all graphs share a pool of memory, since no two run at once."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: the one that pins batches for the data loader may allocate meanwhile.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            step()
        return graph.replay
