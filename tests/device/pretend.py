"""An accelerator that is not there: the numbers of the CPU, the rules of a GPU.

`install()` gives this process a device `pretend`. Each of its tensors holds one on the CPU, where the arithmetic is done;
all else is as on CUDA: tensors of two devices do not meet, a generator belongs to a device, NumPy does not see a tensor,
checkpoints name the device, and what CUDA has no kernel for is refused (`rules.py`). What breaks a rule raises, and the
message names the line of the package that did it.

It changes the process for good: torch then has an accelerator. `conftest.py` sees to it that no other test is in it.

`counting.py` counts what its operations cost. Whatever else is to see them all can add itself to `watchers`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

from tests.device import autocast, rules

NAME = "pretend"
_KEY = "PrivateUse1"

# What makes a tensor: of all others torch makes an empty one first. And what C++ calls past `__torch_dispatch__`.
_MAKERS = (
    "empty",
    "empty_strided",
    "arange",
    "eye",
    "linspace",
    "logspace",
    "randperm",
    "tril_indices",
    "triu_indices",
)
_BELOW = (torch.ops.aten.copy_.default,)
_libraries: list[torch.library.Library] = []  # registrations last as long as these do

# Each sees every operation of the device once it is done: the operation, its arguments, those with names, its result,
# whose tensors are on the CPU. An operation that has none is "synchronize".
watchers: list[Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]] = []


def missing() -> str | None:
    """Why this torch can't be given a device from Python, or None where it can."""
    if hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return None
    return f"torch {torch.__version__} takes no device that is written in Python"


def device() -> torch.device:
    """The device, once there is one."""
    return torch.device(NAME, 0)


class PretendTensor(torch.Tensor):
    """A tensor on the device; `raw` is what it holds, on the CPU."""

    __slots__ = ("raw",)

    raw: Tensor

    @staticmethod
    def __new__(cls, data: Tensor, requires_grad: bool = True, **_: Any) -> torch.nn.Parameter:
        """As of a parameter, whose class libraries take from another one."""
        return torch.nn.Parameter(data, requires_grad)

    @classmethod
    def of(cls, raw: Tensor) -> PretendTensor:
        """A tensor on the device that holds one on the CPU."""
        made: Any = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=device()
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, *args, **(kwargs or {}))

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, new: PretendTensor) -> None:
        torch.Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.raw = new.raw

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.raw.untyped_storage()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.raw!r} on {NAME}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _loaded, (self.raw.detach(), str(self.device), self.requires_grad)


def _loaded(raw: Tensor, saved_on: str, requires_grad: bool) -> Tensor:
    """A tensor of a file: where `map_location` of `torch.load` says, else on the device that it was saved on."""
    if callable(torch.serialization._serialization_tls.map_location):  # it is asked while all is still on the CPU
        return raw.requires_grad_(requires_grad)
    return torch._utils._rebuild_device_tensor_from_cpu_tensor(raw, raw.dtype, saved_on, requires_grad)


class PretendGenerator(torch.Generator):
    """A generator of the device, or of the CPU: what stands in for `torch.Generator`."""

    def __new__(cls, device: torch.device | str = "cpu") -> PretendGenerator:
        here = torch.device(device).type == NAME
        made = super().__new__(cls, "cpu" if here else device)
        if here:
            rules.generators[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return device() if self._cdata in rules.generators else super().device


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """One operation, for which a tensor of the device or the argument `device` asks."""
    inference = torch.is_inference_mode_enabled()
    if inference:  # which brings operations whole that are only made of others
        parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
    found: list[Tensor] = []
    held: dict[int, PretendTensor] = {}

    def raw(value: Any) -> Any:
        if isinstance(value, Tensor):
            found.append(value)
            if isinstance(value, PretendTensor):
                held[id(value.raw)] = value
                return value.raw
        return type(value)(map(raw, value)) if isinstance(value, (list, tuple)) else value

    given = [raw(value) for value in args], {name: raw(value) for name, value in kwargs.items()}
    rules.check(func, args, kwargs, found)
    asked = kwargs.get("device")
    here = asked is None or asked.type == NAME
    if asked is not None and here:
        given[1]["device"] = torch.device("cpu")
    result = func(*given[0], **given[1])
    if torch.Tag.inplace_view in func.tags:
        with torch._C._DisableTorchDispatch():  # type: ignore[attr-defined]
            func(*args, **kwargs)  # the wrapper's own shape
    if func._schema.is_mutable:
        for tensor in held.values():
            if (tensor.shape, tensor.stride()) != (tensor.raw.shape, tensor.raw.stride()):
                raise NotImplementedError(f"{func} has changed the shape of a tensor, which {__name__} cannot follow")
    for watcher in watchers:
        watcher(func, args, kwargs, result)
    if not here or func in rules.READS:
        return result

    def wrapped(value: Any) -> Any:
        if isinstance(value, Tensor):  # what was changed in place stays the same tensor
            return held[id(value)] if id(value) in held else PretendTensor.of(value)
        return type(value)(map(wrapped, value)) if isinstance(value, (list, tuple)) else value

    if inference and func.is_view and not all(tensor.is_inference() for tensor in held.values()):
        with torch.inference_mode(False):  # as elsewhere, a view is of the kind of what it looks at
            return wrapped(result)
    return wrapped(result)


class _Module:
    """What torch asks the module `torch.pretend` for."""

    class device:
        def __init__(self, *_: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *_: Any) -> None: ...

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...  # draws without a generator are those of the CPU

    def synchronize(self, device: Any = None) -> None:
        for watcher in watchers:
            watcher("synchronize", (), {}, None)

    def empty_cache(self) -> None: ...

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def install() -> None:
    """Give this process the device, once and for good.

    Raises:
        RuntimeError: If this torch cannot have it; see `missing`.
    """
    why = missing()
    if why is not None:
        raise RuntimeError(why)
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    makers = [getattr(torch.ops.aten, name) for name in _MAKERS]
    overloads = [getattr(packet, overload) for packet in makers for overload in packet.overloads()]
    library = torch.library.Library("aten", "IMPL")
    for func in (*overloads, *_BELOW):
        if func in _BELOW or any(argument.name == "device" for argument in func._schema.arguments):
            library.impl(func, partial(_run, func), _KEY)
    _libraries.extend((library, *autocast.install()))
    torch.serialization.add_safe_globals([_loaded])
    torch.Generator = PretendGenerator  # type: ignore[misc]
