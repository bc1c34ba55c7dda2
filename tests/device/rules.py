"""What CUDA refuses and the CPU does not, and whose line of ours asked for it."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
import torchgen
import yaml
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

# Operation -> dtypes of its first argument that the CPU has a kernel for and CUDA has none, by the dispatch macros of
# ATen/native/cuda
_WHOLE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_HALF = {torch.float16, torch.bfloat16}
_FLOATS_ALONE = """mm addmm bmm baddbmm mv addmv dot vdot convolution convolution_overrideable
max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
_upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad2d grid_sampler_2d grid_sampler_3d"""
_NO_KERNEL = dict.fromkeys(_FLOATS_ALONE.split(), _WHOLE)
_NO_KERNEL |= {"histc": {torch.float16}, "_cdist_forward": _HALF, "_linalg_svd": _HALF, "linalg_inv_ex": _HALF}

# Operation, with its overload where that matters -> the argument that makes it depend on the order of threads where it is a
# tensor of floats; None where it always does. These raise in one supported version of torch or another, as the page of
# `torch.use_deterministic_algorithms` lists them. What has a decomposition there, as bilinear interpolation has, comes as
# that.
_NO_FIXED_ORDER: dict[str, int | None] = {"cumsum": 0, "cumsum_": 0, "histc": 0, "bincount": 1}
_NONE_AT_ALL = """put put_ kthvalue median.dim nanmedian.dim scatter_reduce scatter_reduce_ index_reduce index_reduce_
nll_loss2d_forward nll_loss2d_backward _ctc_loss_backward grid_sampler_2d_backward grid_sampler_3d_backward
upsample_linear1d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward upsample_trilinear3d_backward
_upsample_bilinear2d_aa_backward _upsample_bicubic2d_aa_backward
avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward
fractional_max_pool2d_backward fractional_max_pool3d_backward max_unpool2d max_unpool3d
reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
max_pool3d_with_indices_backward"""
_NO_FIXED_ORDER |= dict.fromkeys(_NONE_AT_ALL.split())

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
    why = _mixing(func, args, tensors) or _generator(kwargs) or _kernel(func, name, args) or _order(func, name, args)
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


def _kernel(func: Any, name: str, args: tuple[Any, ...]) -> str | None:
    if f"{name}.{func._schema.overload_name}".rstrip(".") in of_the_cpu_alone():
        return "has no kernel but those of the CPU"
    if name in _NO_KERNEL and args[0].dtype in _NO_KERNEL[name]:
        return f"of {args[0].dtype}, for which CUDA has no kernel"
    return None


@cache
def of_the_cpu_alone() -> frozenset[str]:
    """The operations that torch's own table of kernels has for the CPU and not for CUDA."""
    table = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = {each["func"].partition("(")[0]: each for each in yaml.load(table.read_text(), loader)}
    alone = set()
    for name, entry in entries.items():
        kernels = entries[entry["structured_delegate"]] if "structured_delegate" in entry else entry
        keys = {key.strip() for listed in kernels.get("dispatch") or () for key in listed.split(",")}
        if "CPU" in keys and "CUDA" not in keys and not any(key.startswith("Composite") for key in keys):
            alone.add(name)
    return frozenset(alone)


def _order(func: Any, name: str, args: tuple[Any, ...]) -> str | None:
    if not torch.are_deterministic_algorithms_enabled():
        return None
    for known in (name, f"{name}.{func._schema.overload_name}"):
        if known in _NO_FIXED_ORDER:
            at = _NO_FIXED_ORDER[known]
            value = args[at or 0] if len(args) > (at or 0) else None
            if at is None or (isinstance(value, Tensor) and value.is_floating_point()):
                of = f"of {value.dtype}" if isinstance(value, Tensor) else ""
                return f"{of}, which CUDA adds in no fixed order, though deterministic algorithms are asked for"
    return None


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
