"""The linear maps of a decoding step: what sees the same input is one matrix, and adapters stand beside it.

Legend: N rows, R rank of all adapters of a map together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.adapters import low_rank


class Map(Protocol):
    """A linear map of rows."""

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        ...

    def added(self, rest: Tensor, x: Tensor) -> Tensor:
        """(N, out) plus the map of (N, in)."""
        ...

    def refresh(self) -> None:
        """Take the weights as they are now; what was computed from them is written where it stood."""
        ...

    @property
    def buffers(self) -> list[Tensor]:
        """What a step reads, if it is always at the same place; none where that can't be known."""
        ...


class Dense:
    """y = x W^T + b.

    Args:
        weight: (out, in).
        bias: (out,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def added(self, rest: Tensor, x: Tensor) -> Tensor:
        if rest.dtype != x.dtype:
            return rest + self(x)
        y = torch.addmm(rest, x, self.weight.t())
        return y if self.bias is None else y.add_(self.bias)

    def refresh(self) -> None:
        """Nothing was computed."""

    @property
    def buffers(self) -> list[Tensor]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]


class Joined(Dense):
    """Linear layers that see the same input as one: y = x W^T + b + (x A^T) B^T, their outputs side by side.

    Weights are views of one buffer, so that nothing is held twice, or copies where `dtype` is another one. Adapters are
    copied in `dtype`, their scale in B, so that no step casts them: A one below the other, B in blocks.

    Args:
        layers: Plain linear layers, with LoRA or without.
        dtype: Of the products.
    """

    def __init__(self, layers: Sequence[Any], dtype: torch.dtype) -> None:
        self.layers, self.dtype = layers, dtype
        self.down: Tensor | None = None
        self.up: Tensor | None = None
        self.refresh()

    def __call__(self, x: Tensor) -> Tensor:
        y = super().__call__(x)
        if self.down is None or self.up is None:
            return y
        return y.addmm_(F.linear(x, self.down), self.up)

    def added(self, rest: Tensor, x: Tensor) -> Tensor:
        if self.down is None or self.up is None or rest.dtype != x.dtype:
            return super().added(rest, x)
        return super().added(rest, x).addmm_(F.linear(x, self.down), self.up)

    def refresh(self) -> None:
        parts = [part for part in map(low_rank, self.layers) if part is not None]
        assert len(parts) == len(self.layers)
        self.weight = _joined([part.weight for part in parts], self.dtype)
        biases = [part.bias for part in parts if part.bias is not None]
        self.bias = _joined(biases, self.dtype) if biases else None
        rank = sum(len(down) for part in parts for down, _, _ in part.adapters)
        if rank == 0:
            self.down = self.up = None
            return
        if self.down is None or self.up is None or len(self.down) != rank:
            self.down = self.weight.new_empty(rank, self.weight.shape[1])
            self.up = self.weight.new_zeros(rank, self.weight.shape[0])
        row = column = 0
        for part in parts:
            for down, up, scale in part.adapters:
                end = row + len(down)
                self.down[row:end].copy_(down)
                self.up[row:end, column : column + len(up)].copy_(up.t() * scale)
                row = end
            column += len(part.weight)

    @property
    def buffers(self) -> list[Tensor]:
        return [*super().buffers, *(each for each in (self.down, self.up) if each is not None)]


class Computed(Dense):
    """A map whose weight and bias are computed from those of the model.

    Args:
        compute: Gives both; what it gives without a copy stands where the model has it.
    """

    def __init__(self, compute: Callable[[], tuple[Tensor, Tensor | None]]) -> None:
        super().__init__(*compute())
        self.compute = compute

    def refresh(self) -> None:
        weight, bias = self.compute()
        if weight.data_ptr() != self.weight.data_ptr():
            self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


class Apart:
    """Maps of the same input, their outputs side by side: packed weights, other adapters, weights that others move.

    Args:
        layers: Modules or maps.
    """

    def __init__(self, layers: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self.layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        if len(self.layers) == 1:
            return self.layers[0](x)
        return torch.cat([layer(x) for layer in self.layers], dim=-1)

    def added(self, rest: Tensor, x: Tensor) -> Tensor:
        return rest + self(x)

    def refresh(self) -> None:
        """They are made anew for each rollout, since their weights stay nowhere."""

    @property
    def buffers(self) -> list[Tensor]:
        return []


def joined(layers: Sequence[Any], dtype: torch.dtype, *, own: bool) -> Map:
    """Layers that see the same input as one map.

    Args:
        layers: Linear layers, adapters in place.
        dtype: Of the products.
        own: Whether their weights may be laid side by side.
    """
    if any(low_rank(layer) is None for layer in layers):
        return Apart(layers)
    return Joined(layers, dtype) if own else Apart([Joined([layer], dtype) for layer in layers])


def _joined(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    if any(weight.dtype != dtype for weight in weights):
        return torch.cat([weight.detach() for weight in weights]).to(dtype)
    return side_by_side(weights)


def side_by_side(weights: Sequence[Tensor]) -> Tensor:
    """Weights (out_i, ...), of one shape but for their first size, as one tensor (sum of out_i, ...) that they are views of.

    Where they already are it is that tensor, without a copy; else they are copied into one and become its parts.
    """
    first = weights[0].detach()
    if len(weights) == 1:
        return first
    at = first.storage_offset()
    storage = first.untyped_storage().data_ptr()
    for weight in weights:
        if (
            not weight.is_contiguous()
            or weight.untyped_storage().data_ptr() != storage
            or weight.storage_offset() != at
        ):
            break
        at += weight.numel()
    else:
        size = sum(len(weight) for weight in weights)
        return first.as_strided((size, *first.shape[1:]), first.stride())
    whole = torch.cat([weight.detach() for weight in weights])
    for weight, part in zip(weights, whole.split([len(weight) for weight in weights]), strict=True):
        weight.data = part
    return whole
