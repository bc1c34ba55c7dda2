"""Keys and values of what has been read and sampled."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_BLOCK = 64  # Steps that the cache grows by at once


@dataclass(slots=True)
class PackedCache:
    """Keys and values of P prompts of L tokens and of t tokens of each of their G responses; (P, H, L + t G, D) a layer.

    Args:
        groups: G.
        keys: Layer -> keys, with room for more.
        values: Layer -> values, likewise.
        used: Layer -> L + t G, how much of the room is filled.
    """

    groups: int
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append what a layer computed for new tokens; all its keys and values."""
        start = self.used.get(layer, 0)
        end = self.used[layer] = start + keys.shape[2]
        if not start:
            self.keys[layer], self.values[layer] = keys, values
        elif end > self.keys[layer].shape[2]:
            room = keys.new_empty(*keys.shape[:2], end - start + _BLOCK * self.groups, keys.shape[3])
            self.keys[layer] = torch.cat([self.keys[layer][:, :, :start], room], dim=2)
            self.values[layer] = torch.cat([self.values[layer][:, :, :start], room], dim=2)
        if start:
            self.keys[layer][:, :, start:end] = keys
            self.values[layer][:, :, start:end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def pack(self, length: int, prompts: Tensor, slots: Tensor) -> None:
        """Keep (P',) prompts and, of each, the responses in (P', G') slots, behind `length` prompt tokens."""
        for held in (self.keys, self.values):
            for layer, states in held.items():
                kept = states[prompts, :, : self.used[layer]]
                grown = kept[:, :, length:].unflatten(2, (-1, self.groups))  # (P', H, t, G, D)
                index = slots[:, None, None, :, None].expand(*grown.shape[:3], -1, grown.shape[4])
                held[layer] = torch.cat([kept[:, :, :length], grown.gather(3, index).flatten(2, 3)], dim=2)
        for layer in self.used:
            self.used[layer] = self.keys[layer].shape[2]
        self.groups = slots.shape[1]
