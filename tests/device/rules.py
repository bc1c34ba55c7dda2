"""What CUDA refuses and the CPU does not, and whose line of ours asked for it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

import lightning_sal

aten = torch.ops.aten

_PACKAGE = f"{Path(lightning_sal.__file__).parent}{os.sep}"
_TOOL = f"{Path(__file__).parent}{os.sep}"
_TESTS = f"{_TOOL}test_"

READS = {aten._local_scalar_dense.default}  # a number of the CPU comes out
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXES = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
}
_FILLS = {
    aten.fill_.Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
}  # and pointwise operations take a number

_WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_FLOATS_ALONE = "mm addmm bmm baddbmm mv addmv dot convolution upsample_bilinear2d upsample_bicubic2d "
_FLOATS_ALONE += "_upsample_bilinear2d_aa _upsample_bicubic2d_aa"
_NO_KERNEL = dict.fromkeys(_FLOATS_ALONE.split(), _WHOLE)

# Operation -> index of the argument that makes it depend on the order of the threads where it is of floats
_NO_FIXED_ORDER = {"cumsum": 0, "cumsum_": 0, "bincount": 1, "put_": 2, "histc": 0}

broken: list[str] = []  # every message of this process, those that were caught and forgotten too


# Those of the device, by address: an operation gets another object for the same generator
generators: WeakValueDictionary[int, Any] = WeakValueDictionary()


class BrokenRule(RuntimeError):
    """What CUDA would have refused."""


def check(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
    """Refuse what CUDA refuses.

    Args:
        func: An operation of ATen, which a tensor or an argument `device` brought to the device.
        args: Its arguments.
        kwargs: Those with names.
        tensors: All tensors among them.

    Raises:
        BrokenRule: With the line of the package, the operation, and what it was given.
    """
    name = func._schema.name.removeprefix("aten::")
    why = _mixing(func, args, tensors) or _generator(kwargs) or _kernel(name, args) or _order(name, args)
    if why is not None:
        broken.append(f"{line_of_ours()}: {func} {why}")
        raise BrokenRule(broken[-1])


def _mixing(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> str | None:
    strangers = [tensor for tensor in tensors if tensor.device.type == "cpu"]
    if not strangers or len(strangers) == len(tensors) or func in COPIES:
        return None
    if func in INDEXES and args[0].device.type != "cpu":
        given = {id(index) for index in args[1] if index is not None}
        strangers = [tensor for tensor in strangers if id(tensor) not in given and tensor.ndim]
    elif func in _FILLS or torch.Tag.pointwise in func.tags:
        strangers = [tensor for tensor in strangers if tensor.ndim]
    if not strangers:
        return None
    return "of two devices: " + ", ".join(f"{tuple(t.shape)} {t.dtype} on {t.device}" for t in tensors)


def _generator(kwargs: dict[str, Any]) -> str | None:
    generator = kwargs.get("generator")
    return None if generator is None or generator._cdata in generators else "draws by a generator of the CPU"


def _kernel(name: str, args: tuple[Any, ...]) -> str | None:
    if name in _NO_KERNEL and args[0].dtype in _NO_KERNEL[name]:
        return f"of {args[0].dtype}, for which CUDA has no kernel"
    return None


def _order(name: str, args: tuple[Any, ...]) -> str | None:
    if name not in _NO_FIXED_ORDER or not torch.are_deterministic_algorithms_enabled():
        return None
    value = args[_NO_FIXED_ORDER[name]] if len(args) > _NO_FIXED_ORDER[name] else None
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    return f"of {value.dtype}, which CUDA adds in no fixed order, though deterministic algorithms are asked for"


class Line(NamedTuple):
    """A line of the package at work, or of a test."""

    file: str  # below the folder of the package
    number: int
    function: str


def lines_of_ours() -> list[Line]:
    """The lines of the package that are at work, the innermost first; where there is none, that of the test.

    A backward pass runs in a thread of its own, without the lines that recorded it: those are the lines that started it.
    """
    frame: FrameType | None = sys._getframe()
    if threading.current_thread() is not threading.main_thread():
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
    lines, tests = [], []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            lines.append(Line(code.co_filename.removeprefix(_PACKAGE), frame.f_lineno, code.co_name))
        elif code.co_filename.startswith(_TESTS):
            tests.append(Line(code.co_filename.removeprefix(_TOOL), frame.f_lineno, code.co_name))
        frame = frame.f_back
    return lines or tests[:1]


def line_of_ours() -> str:
    """`<file>:<line>` of the package that is at work, else of the test; and whether it is in a backward pass."""
    line = next(iter(lines_of_ours()), None)
    said = "?" if line is None else f"{line.file}:{line.number}"
    if line is not None and not line.file.startswith("test_"):
        said = f"{lightning_sal.__name__}/{said}"
    if threading.current_thread() is threading.main_thread():
        return said
    node = torch._C._current_autograd_node()  # type: ignore[attr-defined]
    return f"{said} (backward pass of {node.name() if node is not None else 'an operation'})"
