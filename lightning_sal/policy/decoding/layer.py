"""What a decoder layer is made of.

Legend: N rows, C hidden size, H query heads, K key heads, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.decoding.linear import Map


@dataclass(slots=True)
class Layer:
    """A decoder layer of rows.

    Args:
        attention_norm: (N, C) -> (N, C).
        queries_keys_values: (N, C) -> (N, (H + 2 K) D).
        head_norms: Of queries and of keys (..., heads, D); none where there are no such norms.
        out: (N, H D) -> (N, C).
        mlp_norm: (N, C) -> (N, C).
        gate_up: (N, C) -> (N, 2 x intermediate size).
        down: (N, intermediate size) -> (N, C).
    """

    attention_norm: Norm
    queries_keys_values: Map
    head_norms: tuple[Norm, ...]
    out: Map
    mlp_norm: Norm
    gate_up: Map
    down: Map

    @property
    def maps(self) -> tuple[Map, ...]:
        return self.queries_keys_values, self.out, self.gate_up, self.down


class Norm:
    """RMS norm over the last dimension: w x / sqrt(mean(x^2) + eps).

    Args:
        weight: w.
        eps: Of the mean.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Cast(Norm):
    """A norm whose result is in the dtype of the products behind it."""

    def __init__(self, norm: Norm, dtype: torch.dtype) -> None:
        super().__init__(norm.weight, norm.eps)
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x).to(self.dtype)
