"""What the operations of the pretended device would cost on a GPU, by the lines of the package that ask for them.

    with counting() as counts:
        step()
    assert not counts.waits and not counts.copies
    print(counts)

A GPU works through a queue, ahead of which the host runs. A wait empties the queue: the host asks what the device has
computed. A copy from ordinary memory waits as well, since the host may not touch what is being copied. Each kernel costs
the host some microseconds, whatever it computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.device import pretend
from tests.device.rules import COPIES, INDEXES, Line, lines_of_ours

aten = torch.ops.aten

_SIZED_BY_VALUES = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
_CARRIER = "transfer.py"  # of the package: whoever calls it has asked
_NO_KERNEL = {
    "_unsafe_view",
    "set_",
    "resize_",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
}


class Place(NamedTuple):
    """Where something was asked for.

    Args:
        file: Of the package, as `modules/rollout.py`; `test_...` where none of its lines is at work.
        line: Its number.
        function: Its name.
        operation: Of ATen.
        callers: Files of the lines that are at work further out, the innermost first.
    """

    file: str
    line: int
    function: str
    operation: str
    callers: tuple[str, ...]

    def within(self, *starts: str) -> bool:
        """Whether a file that begins so is at work here, or called what is."""
        return any(file.startswith(starts) for file in (self.file, *self.callers))

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.operation}"


@dataclass
class Counts:
    """How often something was asked for, by place.

    Args:
        waits: Numbers and shapes that are read, copies to the CPU, indexing by a mask, synchronisation.
        copies: Tensors that are made on the CPU and moved.
        queued: Copies between the two that need not wait (`non_blocking`). Towards the CPU that takes pinned memory, which
            nobody can check here.
        kernels: Operations that are neither views nor allocations.
    """

    waits: Counter[Place] = field(default_factory=Counter)
    copies: Counter[Place] = field(default_factory=Counter)
    queued: Counter[Place] = field(default_factory=Counter)
    kernels: Counter[Place] = field(default_factory=Counter)

    def outside(self, *starts: str) -> Counts:
        """What was asked for where no file that begins so is at work."""
        return Counts(*(Counter({at: n for at, n in each.items() if not at.within(*starts)}) for each in self._all))

    def within(self, *starts: str) -> Counts:
        """What was asked for where one is."""
        return Counts(*(Counter({at: n for at, n in each.items() if at.within(*starts)}) for each in self._all))

    @property
    def _all(self) -> tuple[Counter[Place], ...]:
        return self.waits, self.copies, self.queued, self.kernels

    def __str__(self) -> str:
        """Waits and copies, a line each; kernels in sum."""
        lines = []
        for name, found in zip(("wait", "copy", "queued"), self._all, strict=False):
            by_line = Counter({str(at): 0 for at in found})
            for at, count in found.items():
                by_line[str(at)] += count
            lines += [f"{count:6d}  {name:6s}  {at}" for at, count in sorted(by_line.items())]
        return "\n".join([*lines, f"{self.kernels.total():6d}  kernels"])


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens inside; the result fills as it does."""
    counts = Counts()

    def see(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        kind = _kind(func, args, kwargs)
        if kind is not None:
            lines = lines_of_ours() or [Line("?", 0, "?")]
            while lines[0].file == _CARRIER and len(lines) > 1:
                lines = lines[1:]
            name = func if isinstance(func, str) else func._schema.name.removeprefix("aten::")
            getattr(counts, kind)[Place(*lines[0], name, tuple(line.file for line in lines[1:]))] += 1

    with _watching(see):
        yield counts


class Operation(NamedTuple):
    """One operation of a trace.

    Args:
        name: Of ATen, with its overload.
        given: Its arguments: of a tensor (shape, strides, offset, dtype, which memory), of a tensor of the CPU its values
            in place of the memory. Memory is ("held", address) where it was there before the trace, else ("made", number
            of what the trace made).
        at: Where it was asked for.
    """

    name: str
    given: Any
    at: str


class Trace(list[Operation]):
    """The operations of a step in their order. What a CUDA graph replays is the same list each time, in the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []  # what the step made, so that nothing else comes to lie there

    def difference(self, other: Trace) -> str | None:
        """Where another step departs from this one; None where it is the same."""
        for number, (mine, theirs) in enumerate(zip(self, other, strict=False)):
            if mine[:2] != theirs[:2]:
                return f"operation {number}: {mine} is followed by {theirs}"
        return None if len(self) == len(other) else f"{len(self)} operations are followed by {len(other)}"


@contextmanager
def tracing() -> Iterator[Trace]:
    """Write down what happens inside."""
    trace, numbers = Trace(), dict[int, int]()

    def memory(raw: Tensor) -> tuple[str, int]:
        address = raw.untyped_storage().data_ptr()
        return ("made", numbers[address]) if address in numbers else ("held", address)

    def described(value: Any) -> Any:
        if isinstance(value, pretend.PretendTensor):
            raw = value.raw
            return (*map(tuple, (raw.shape, raw.stride())), raw.storage_offset(), raw.dtype, memory(raw))
        if isinstance(value, Tensor):
            return tuple(value.shape), value.dtype, str(value.tolist())
        if isinstance(value, (list, tuple)):
            return tuple(map(described, value))
        return "a generator" if isinstance(value, torch.Generator) else value

    def see(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        given = described(args), tuple((name, described(value)) for name, value in sorted(kwargs.items()))
        before = {memory(value.raw)[1] for value in _tensors((args, *kwargs.values()))
                  if isinstance(value, pretend.PretendTensor)}  # fmt: skip
        for raw in _tensors((result,)):
            address = raw.untyped_storage().data_ptr()
            if memory(raw)[1] not in before and address not in numbers:
                numbers[address] = len(numbers)
                trace.kept.append(raw)
        line = next(iter(lines_of_ours()), None)
        trace.append(Operation(str(func), given, "?" if line is None else f"{line.file}:{line.number}"))

    with _watching(see):
        yield trace


@contextmanager
def _watching(see: Any) -> Iterator[None]:
    pretend.watchers.append(see)
    try:
        yield
    finally:
        pretend.watchers.remove(see)


def _kind(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Which of the counters an operation belongs to."""
    if func == "synchronize":
        return "waits"
    if func in COPIES:
        source = args[1] if func is aten.copy_.default else args[0]
        to = args[0].device if func is aten.copy_.default else kwargs.get("device") or source.device
        if (source.device.type == "cpu") != (to.type == "cpu"):
            asynchronous = kwargs.get("non_blocking") or True in args[2:]
            return "queued" if asynchronous else "waits" if to.type == "cpu" else "copies"
    if func in INDEXES:
        given = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in given):
            return "waits"
        return "copies" if any(tensor.device.type == "cpu" for tensor in (*given, *_tensors(args[2:]))) else "kernels"
    if _SIZED_BY_VALUES & set(func.tags) and kwargs.get("output_size") is None:
        return "waits"
    name = func._schema.name.removeprefix("aten::")
    return None if func.is_view or name in _NO_KERNEL else "kernels"


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
