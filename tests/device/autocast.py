"""Mixed precision on the device: the operations that matter here, in the precisions that CUDA's autocast gives them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

_KEY = "AutocastPrivateUse1"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_LOW = """linear matmul mm bmm addmm baddbmm mv conv1d conv2d conv3d conv_transpose2d.input prelu
scaled_dot_product_attention"""
_FLOAT32 = """exp log log1p rsqrt reciprocal pow.Tensor_Scalar pow.Tensor_Tensor softplus layer_norm group_norm logsumexp
softmax.int log_softmax.int cumsum prod sum sum.dim_IntList norm.Scalar mse_loss cosine_similarity"""
_WIDEST = """cat stack addcmul addcdiv dot index_put scatter_add"""


def install() -> list[torch.library.Library]:
    """Register it, for as long as the result lives."""
    everything, ours = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, _KEY)
    for names, rule in ((_LOW, _low), (_FLOAT32, _float32), (_WIDEST, _widest)):
        for name in names.split():
            packet, _, overload = name.partition(".")
            func = getattr(getattr(torch.ops.aten, packet), overload or "default")
            ours.impl(func, partial(_run, func, rule), _KEY)
    return [everything, ours]


def _run(func: Any, rule: Any, *args: Any, **kwargs: Any) -> Any:
    dtype = rule([value.dtype for value in _flat([args, *kwargs.values()]) if _casts(value)])
    off = torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1))
    with off:
        args, kwargs = _cast(args, dtype), {name: _cast(value, dtype) for name, value in kwargs.items()}
        return func(*args, **kwargs)


def _low(dtypes: list[torch.dtype]) -> torch.dtype:
    return torch.get_autocast_dtype(torch._C._get_privateuse1_backend_name())


def _float32(dtypes: list[torch.dtype]) -> torch.dtype:
    return torch.float32


def _widest(dtypes: list[torch.dtype]) -> torch.dtype:
    return torch.float32 if torch.float32 in dtypes else _low(dtypes)


def _casts(value: Any) -> bool:
    """Whether autocast looks at a value: floats of the device but float64."""
    return isinstance(value, Tensor) and value.device.type != "cpu" and value.dtype in _FLOATS


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if _casts(value):
        return value.to(dtype)
    return type(value)(_cast(each, dtype) for each in value) if isinstance(value, (list, tuple)) else value


def _flat(values: Any) -> list[Any]:
    return [leaf for value in values for leaf in (_flat(value) if isinstance(value, (list, tuple)) else [value])]
