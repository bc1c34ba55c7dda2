"""A small model in float32 with all that can be computed once computed once.

It spends its time on calls. So adapters and the weights of norms are merged into a copy of the matrices, and the numbers of
a head stand in pairs, so that the rotary embedding is one product of complex numbers. That changes no number by more than
rounding. In half precision merging would round adapters away.

Legend: C hidden size, K key heads, D their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.adapters import LowRank, low_rank
from lightning_sal.policy.backbone import Backbone, DecoderLayer
from lightning_sal.policy.decoding.layer import Layer, Norm
from lightning_sal.policy.decoding.linear import Computed

MOST_PARAMETERS = 100_000_000  # Beyond, arithmetic outweighs calls, and the copy costs memory


def can_merge(backbone: Backbone, dtype: torch.dtype) -> bool:
    """Whether it is a small model, in float32 at least, of plain linear layers with LoRA or without."""
    weights = list(backbone.language_model.parameters())
    linears = [each for part in backbone.decoder_layers for each in part.linears]
    return (
        dtype in (torch.float32, torch.float64)
        and all(weight.dtype == dtype for weight in weights)
        and sum(weight.numel() for weight in weights) <= MOST_PARAMETERS
        and all(low_rank(linear) is not None for linear in linears)
    )


class Direction(Norm):
    """The RMS norm but for a factor that is merged into the matrix behind it: x / hypot(|x|, sqrt(C eps)), which is
    x / sqrt(mean(x^2) + eps) / sqrt(C)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__(weight, eps)
        self.least = weight.new_tensor(len(weight) * eps).sqrt()

    @property
    def factor(self) -> Tensor:
        """(C,) what the columns of that matrix are multiplied by."""
        return len(self.weight) ** 0.5 * self.weight.detach()

    def __call__(self, x: Tensor) -> Tensor:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.least)


class PairNorm(Norm):
    """The RMS norm of heads whose numbers stand in pairs."""

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.weight.view(2, -1).t()
        return F.rms_norm(x.unflatten(-1, (-1, 2)), weight.shape, weight, self.eps).flatten(-2)


def merged_layer(part: DecoderLayer, key_heads: int, depth: int) -> Layer:
    """A decoder layer; its maps are computed from the weights as they are whenever they are refreshed."""
    attention, mlp = Direction(part.attention_norm, part.eps), Direction(part.mlp_norm, part.eps)

    def queries_keys_values() -> tuple[Tensor, Tensor | None]:
        parts = [merged(linear) for linear in part.queries_keys_values]
        turning = [
            (_in_pairs(weight, depth), bias if bias is None else _in_pairs(bias, depth)) for weight, bias in parts[:2]
        ]
        weight, bias = _together([*turning, parts[2]])
        return by_columns(weight * attention.factor), bias

    def out() -> tuple[Tensor, Tensor | None]:
        weight, bias = merged(part.out)  # whose columns are what heads saw: those that share a key head side by side
        return by_columns(weight.unflatten(1, (key_heads, -1, depth)).transpose(1, 2).flatten(1)), bias

    def gate_up() -> tuple[Tensor, Tensor | None]:
        weight, bias = _together([merged(linear) for linear in part.gate_up])
        return by_columns(weight * mlp.factor), bias

    def down() -> tuple[Tensor, Tensor | None]:
        weight, bias = merged(part.down)
        return by_columns(weight), bias

    return Layer(
        attention,
        Computed(queries_keys_values),
        tuple(PairNorm(weight, part.eps) for weight in part.head_norms),
        Computed(out),
        mlp,
        Computed(gate_up),
        Computed(down),
    )


def by_columns(weight: Tensor) -> Tensor:
    """The same matrix, its columns whole in memory: a product with few rows is then up to twice as fast on a CPU."""
    return weight.t().contiguous().t()


def pairs(depth: int, device: torch.device) -> Tensor:
    """(D,) 0, D / 2, 1, D / 2 + 1, ...: the order in which numbers that are turned together stand side by side."""
    return torch.arange(depth, device=device).view(2, -1).t().flatten()


def _in_pairs(states: Tensor, depth: int) -> Tensor:
    """(heads x D, ...) in that order."""
    return states.unflatten(0, (-1, 2, depth // 2)).transpose(1, 2).flatten(0, 2)


def merged(linear: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with adapters added: W + sum of scale B A."""
    part: LowRank | None = low_rank(linear)
    assert part is not None
    weight = part.weight.detach()
    for down, up, scale in part.adapters:
        weight = torch.addmm(weight, up.detach().to(weight.dtype), down.detach().to(weight.dtype), alpha=scale)
    return weight, None if part.bias is None else part.bias.detach()


def _together(parts: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    biases = [bias for _, bias in parts if bias is not None]
    return torch.cat([weight for weight, _ in parts]), torch.cat(biases) if biases else None
