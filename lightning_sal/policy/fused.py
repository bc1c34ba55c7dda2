"""A decoding step of a small language model without its overhead.

A small model spends its decoding time on calls, not on arithmetic. In float32 the adapters and the weights of the norms
can be merged into a copy of the matrices, and matrices that see the same input laid side by side, without changing a
number by more than rounding: a third of the calls is left. In half precision merging would round adapters away, so there
the model runs as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.policy.adapters import merged_weight
from lightning_sal.policy.backbone import DecoderLayer, plain_decoder
from lightning_sal.policy.cache import PackedCache

_MOST_PARAMETERS = 100_000_000  # Beyond, arithmetic outweighs the calls, and the copy costs memory


def can_fuse(language_model: Any) -> bool:
    """Whether it is a small, dense Qwen2.5-VL in float32 whose weights are here as plain tensors, not shards."""
    weights = list(language_model.parameters())
    return (
        plain_decoder(language_model) is not None
        and all(type(w) is nn.Parameter and w.dtype == torch.float32 and w.numel() for w in weights)
        and sum(w.numel() for w in weights) <= _MOST_PARAMETERS
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of a decoder layer; (out, in), queries, keys and values in one, gate and up in one, each with its norm."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class FusedDecoder:
    """One forward pass of words, not images, on a copy of the language model's weights as they are now; no gradient.

    Args:
        language_model: What `can_fuse` accepts.
    """

    def __init__(self, language_model: Any) -> None:
        plain = plain_decoder(language_model)
        if plain is None:
            raise ValueError(f"{type(language_model).__name__} cannot be fused: ask can_fuse first")
        self.frequencies, self.heads, self.key_heads = plain.frequencies, plain.heads, plain.key_heads
        width = plain.norm.shape[0]
        # RMS norm of x in C dimensions: w x / sqrt(|x|^2 / C + eps) = (sqrt(C) w) x / hypot(|x|, sqrt(C eps)).
        self.least = self.frequencies.new_tensor(width * plain.eps).sqrt()
        self.norm = width**0.5 * plain.norm
        self.layers = [_fuse(layer, width**0.5) for layer in plain.layers]

    def __call__(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PackedCache) -> Tensor:
        """`sampling.Advance`: (P, S, C) embeddings -> (P, S, C) hidden states."""
        count, new, width = embeds.shape
        # The three positions of a word are one and the same, so its sections of M-RoPE are those of plain RoPE.
        angles = (positions[0, :, :, None] * self.frequencies)[:, None]  # (P, 1, S, D / 2)
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        depth, shared = cos.shape[-1], self.heads // self.key_heads
        # Query heads that share a key head stand among the queries, so that keys are read once and never repeated.
        seen = mask.expand(count, 1, new, -1).repeat(1, 1, shared, 1)
        x = embeds.reshape(-1, width)
        for number, layer in enumerate(self.layers):
            qkv = F.linear(self._direction(x), layer.qkv, layer.qkv_bias).view(count, new, -1, depth).transpose(1, 2)
            turning, value = qkv.split([self.heads + self.key_heads, self.key_heads], dim=1)
            first, second = turning.chunk(2, dim=-1)
            turned = torch.addcmul(turning * cos, torch.cat([-second, first], dim=-1), sin)
            query, key = turned.split([self.heads, self.key_heads], dim=1)
            keys, values = cache.update(number, key, value)
            query = query.reshape(count, self.key_heads, shared * new, depth)
            seen_by = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
            mixed = seen_by.view(count, self.heads, new, depth).transpose(1, 2).reshape(count * new, -1)
            x = torch.addmm(x, mixed, layer.out.t())
            gate, up = F.linear(self._direction(x), layer.gate_up).chunk(2, dim=-1)
            x = torch.addmm(x, F.silu(gate) * up, layer.down.t())
        return (self._direction(x) * self.norm).view(count, new, width)

    def _direction(self, x: Tensor) -> Tensor:
        """An RMS norm but for its weight."""
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.least)


def _fuse(layer: DecoderLayer, scale: float) -> _Layer:
    return _Layer(
        torch.cat([merged_weight(part) for part in layer.queries_keys_values]) * (scale * layer.attention_norm),
        torch.cat([_bias(part) for part in layer.queries_keys_values]),
        merged_weight(layer.out),
        torch.cat([merged_weight(part) for part in layer.gate_up]) * (scale * layer.mlp_norm),
        merged_weight(layer.down),
    )


def _bias(linear: Any) -> Tensor:
    return linear.bias
