"""A language model taken apart for decoding: its layers as functions of rows, whatever becomes of keys and values.

A step of decoding spends its time on reading weights, in a large model, and on calls, in a small one. So what sees the same
input is one matrix product, and nothing is cast or put together anew for each token. See `merging` for small models.

Legend: N rows, C hidden size, H query heads, K key heads, D their width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.backbone import Backbone, DecoderLayer
from lightning_sal.policy.decoding.layer import Cast, Layer, Norm
from lightning_sal.policy.decoding.linear import Computed, Map, joined
from lightning_sal.policy.decoding.merging import Direction, by_columns, can_merge, merged_layer, pairs

# (layer, queries, keys and values (P, G, H + 2 K, D)) -> (P, K, G S, D), what the heads saw
Attend = Callable[[int, Tensor], Tensor]


class Decoder:
    """The decoder layers and the head of a language model, as they are now.

    Args:
        backbone: Whose they are.
        dtype: Of the products.
        suppressed: (V,) bool, True on ids that are never said; their logits are -inf.
        own: Whether weights may be laid side by side. They may not where others move them, as FSDP does.
    """

    def __init__(self, backbone: Backbone, dtype: torch.dtype, suppressed: Tensor, *, own: bool = True) -> None:
        self.backbone, self.dtype, self.suppressed = backbone, dtype, suppressed
        config = backbone.text_config
        self.heads, self.key_heads, self.depth = config.num_attention_heads, config.num_key_value_heads, backbone.depth
        self.merged = own and can_merge(backbone, dtype)
        taken_apart = backbone.decoder_layers
        if self.merged:
            self.layers = [merged_layer(part, self.key_heads, self.depth) for part in taken_apart]
            self.norm: Norm = Direction(backbone.last_norm, backbone.eps)
        else:
            self.layers = [self._joined(part, own) for part in taken_apart]
            self.norm = self._norm(backbone.last_norm)
        self.table = backbone.embedding
        # Not a method: a decoder that refers to itself would keep its copies until garbage is collected.
        self.head = Computed(partial(_head, backbone, self.norm, suppressed, dtype))

    @property
    def shared(self) -> int:
        """Query heads that share a key head."""
        return self.heads // self.key_heads

    @property
    def order(self) -> Tensor | None:
        """(D,) in which order the numbers of a head stand here; None where it is the model's own."""
        return pairs(self.depth, self.suppressed.device) if self.merged else None

    @property
    def maps(self) -> list[Map]:
        return [each for layer in self.layers for each in layer.maps] + [self.head]

    @property
    def buffers(self) -> list[Tensor] | None:
        """All weights that a step reads; None where it can't be known that they stay where they are."""
        maps = self.maps
        if not all(each.buffers for each in maps):
            return None
        return [self.table, *(buffer for each in maps for buffer in each.buffers)]

    def refresh(self) -> None:
        """Take the weights as they are now."""
        for each in self.maps:
            each.refresh()

    def rotations(self, positions: Tensor) -> Tensor:
        """What the heads are turned by at (P, T) positions.

        Returns:
            (P, T, H + 2 K, D / 2) complex, 1 for values; or where heads are not in pairs (P, T, 2, D), cosines and sines.
        """
        cos, sin = (each.to(self.dtype) for each in self.backbone.rotary(positions))
        if not self.merged:
            return torch.stack([cos, sin], dim=2)
        half = self.depth // 2
        turn = torch.complex(cos[..., :half], sin[..., :half])[:, :, None]
        turning = self.heads + self.key_heads
        return torch.cat(
            [turn.expand(-1, -1, turning, -1), torch.ones_like(turn).expand(-1, -1, self.key_heads, -1)], dim=2
        )

    def forward(self, x: Tensor, turn: Tensor, attend: Attend) -> Tensor:
        """(N, C) embeddings -> (N, C) hidden states before the last norm.

        Args:
            x: Of P x G tokens, those of a prompt side by side.
            turn: (P, ...) as `rotations` gives it, of their position.
            attend: Takes queries, keys and values of each layer.
        """
        rows = (len(turn), -1, self.heads + 2 * self.key_heads, self.depth)
        for number, layer in enumerate(self.layers):
            states = layer.queries_keys_values(layer.attention_norm(x)).view(rows)
            if layer.head_norms:
                self._normed(states, *layer.head_norms)
            x = layer.out.added(x, self._rows(attend(number, self._turned(states, turn))))
            gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, dim=-1)
            x = layer.down.added(x, F.silu(gate) * up)
        return x

    def embed(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N, C)."""
        return F.embedding(ids, self.table)

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) hidden states before the last norm -> (N, V) logits, -inf at suppressed ids, in float32 at least."""
        logits = self.head(self.norm(x))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _normed(self, states: Tensor, query_norm: Norm, key_norm: Norm) -> None:
        """Put queries and keys of (P, G, H + 2 K, D) through their norms, in place."""
        queries, keys, _ = states.split([self.heads, self.key_heads, self.key_heads], dim=2)
        queries.copy_(query_norm(queries))
        keys.copy_(key_norm(keys))

    def _rows(self, seen: Tensor) -> Tensor:
        """(P, K, G S, D) -> (N, H D), its heads in the order in which the map behind it takes them."""
        if self.merged:
            return seen.transpose(1, 2).reshape(-1, self.heads * self.depth)
        by_response = seen.unflatten(2, (-1, self.shared)).transpose(1, 2)  # (P, G, K, S, D)
        return by_response.reshape(-1, self.heads * self.depth)

    def _turned(self, states: Tensor, turn: Tensor) -> Tensor:
        """(P, G, H + 2 K, D) with queries and keys turned by (P, ...)."""
        if self.merged:
            as_pairs = torch.view_as_complex(states.view(*states.shape[:3], -1, 2))
            return torch.view_as_real(as_pairs * turn[:, None]).view(states.shape)
        turning = states[:, :, : self.heads + self.key_heads]
        cos, sin = turn[:, None, None].unbind(-2)
        first, second = turning.chunk(2, dim=-1)
        across = torch.cat([-second, first], dim=-1)
        turning.mul_(cos).addcmul_(across, sin)
        return states

    def _norm(self, weight: Tensor) -> Norm:
        norm = Norm(weight, self.backbone.eps)
        return norm if weight.dtype == self.dtype else Cast(norm, self.dtype)

    def _joined(self, part: DecoderLayer, own: bool) -> Layer:
        return Layer(
            self._norm(part.attention_norm),
            joined(part.queries_keys_values, self.dtype, own=own),
            tuple(map(self._norm, part.head_norms)),
            joined([part.out], self.dtype, own=own),
            self._norm(part.mlp_norm),
            joined(part.gate_up, self.dtype, own=own),
            joined([part.down], self.dtype, own=own),
        )


def _head(backbone: Backbone, norm: Norm, suppressed: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of the logits; the bias is -inf at suppressed ids."""
    weight = backbone.head_weight.detach()
    if isinstance(norm, Direction):
        weight = by_columns(weight * norm.factor)
    silent = torch.zeros_like(suppressed, dtype=dtype).masked_fill_(suppressed, float("-inf"))
    return weight.to(dtype), silent
