"""Keys and values of what has been read and said, on buffers that are allocated once.

The G responses to a prompt see its keys, which stand in memory once whatever G is. Query heads that share a key head stand
among the queries, so keys are never repeated. Column t G + g of the responses is token t of response g.

Legend: P prompts of at most L tokens (padded right), G responses a prompt of at most T tokens, K key heads, D their width, S
query heads that share one, C numbers of a head and layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.decoding.parts import merge, with_log_sum_exp


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a rollout.

    Args:
        prompts: P.
        responses: G.
        length: L.
        steps: T.
    """

    prompts: int
    responses: int
    length: int
    steps: int


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of a model's attention.

    Args:
        layers: How many there are.
        key_heads: K.
        shared: S.
        depth: D.
    """

    layers: int
    key_heads: int
    shared: int
    depth: int


class Memory:
    """Prompt and responses in one buffer, (2, P, K, L + G T, D) a layer, which one attention sees under a mask.

    Args:
        shape: Of the rollout.
        heads: Of the model.
        like: Of what dtype and on which device.
    """

    def __init__(self, shape: Shape, heads: Heads, like: Tensor) -> None:
        self.shape, self.heads = shape, heads
        size, rows = shape.length + shape.responses * shape.steps, shape.responses * heads.shared
        # Zeros, since what a mask hides must still be a number.
        room = (2, shape.prompts, heads.key_heads, size, heads.depth)
        self.keys_values = [like.new_zeros(room) for _ in range(heads.layers)]
        self.mask = like.new_empty(shape.prompts, 1, rows, size)
        columns = torch.arange(shape.length, size, device=like.device).view(shape.steps, shape.responses)
        self.places = columns.repeat_interleave(heads.shared, dim=1)  # (T, G S): what a row of the mask sees of a step
        self.at = columns[0]  # (G,) columns of the token that is written next
        self.steps = 0
        self.look_at(shape.steps)

    def begin(self, real: Tensor) -> None:
        """Forget responses, and see (P, L) bool `real` tokens of prompts."""
        self.mask.fill_(hidden(self.mask.dtype))
        self.mask[..., : self.shape.length].masked_fill_(real[:, None, None], 0.0)

    def fill(self, layer: int, rows: Tensor | slice, keys: Tensor, values: Tensor) -> None:
        """Take keys and values (p, K, l, D) of some prompts, l <= L."""
        for held, states in zip(self.keys_values[layer], (keys, values), strict=True):
            held[rows, :, : states.shape[2]] = states.to(held.dtype)

    def look_at(self, steps: int) -> None:
        """See the columns of so many tokens of each response, and no more."""
        if steps == self.steps:
            return
        self.steps = steps
        reach = self.shape.length + self.shape.responses * steps
        self.seen = [held[:, :, :, :reach].unbind(0) for held in self.keys_values]
        self.seen_mask = self.mask[..., :reach]

    def open(self, step: Tensor) -> None:
        """Let each response see its token of a (1,) step, which is written next."""
        places = self.places.index_select(0, step)
        self.at = places[0, :: self.heads.shared]
        self._open(places.view(1, 1, -1, 1))

    def attend(self, layer: int, states: Tensor) -> Tensor:
        """Take a token of each response, and give what its queries see.

        Args:
            layer: Its number.
            states: (P, G, S K + 2 K, D) queries, keys and values; query heads that share a key head side by side.

        Returns:
            (P, K, G S, D), by key head; query heads that share it side by side, those of a response together.
        """
        prompts, responses, every, depth = states.shape
        keys, shared = self.heads.key_heads, self.heads.shared
        new = states[:, :, every - 2 * keys :].view(prompts, responses, 2, keys, depth)
        self.keys_values[layer].index_copy_(3, self.at, new.permute(2, 0, 3, 1, 4))
        asking = states[:, :, : every - 2 * keys].view(prompts, responses, keys, shared, depth)
        asking = asking.transpose(1, 2).reshape(prompts, keys, responses * shared, depth)
        return self.look(layer, asking)

    def look(self, layer: int, asking: Tensor) -> Tensor:
        """(P, K, G S, D) queries -> what they see."""
        keys, values = self.seen[layer]
        return F.scaled_dot_product_attention(asking, keys, values, attn_mask=self.seen_mask)

    def packed(self, which: Tensor, slots: Tensor, steps: int) -> Memory:
        """A memory of (P',) prompts and of each the responses in (P', G') slots, which have said so many tokens."""
        length = self.shape.length
        small = Memory(Shape(len(which), slots.shape[1], length, self.shape.steps), self.heads, self.mask)
        small.begin(self.mask[which, 0, 0, :length] == 0)
        columns = (self.places[:steps, :1] + slots[:, None]).flatten(1)  # (P', steps G')
        for new, old in zip(small.keys_values, self.keys_values, strict=True):
            chosen = old[:, which]
            index = columns[None, :, None, :, None].expand(2, -1, chosen.shape[2], -1, chosen.shape[4])
            new[..., :length, :] = chosen[..., :length, :]
            new[..., length : length + columns.shape[1], :] = chosen.gather(3, index)
        small._open(small.places[:steps].t()[None, None])
        return small

    def _open(self, places: Tensor) -> None:
        """Let responses see columns (1, 1, G S, n)."""
        self.mask.scatter_(3, places.expand(len(self.mask), -1, -1, -1), 0.0)


class PartedMemory(Memory):
    """Prompts in parts that are gone through side by side, responses in a buffer of their own, merged by log-sum-exp.

    Column c of a prompt is in part c modulo their number, so that no part of a prompt is padding alone.

    Args:
        shape: Of the rollout; L is a multiple of `parts`.
        heads: Of the model.
        like: Of what dtype and on which device.
        parts: How many; at most as many as the shortest prompt has tokens.
    """

    def __init__(self, shape: Shape, heads: Heads, like: Tensor, parts: int) -> None:
        super().__init__(Shape(shape.prompts, shape.responses, 0, shape.steps), heads, like)
        self.parts, length = parts, shape.length // parts
        room = (2, shape.prompts, parts, heads.key_heads, length, heads.depth)
        self.prompt_keys_values = [like.new_zeros(room) for _ in range(heads.layers)]
        self.prompt_mask = like.new_empty(shape.prompts, parts, length)

    def begin(self, real: Tensor) -> None:
        super().begin(real[:, :0])
        self.prompt_mask.fill_(hidden(self.mask.dtype))
        self.prompt_mask.masked_fill_(real.unflatten(1, (-1, self.parts)).transpose(1, 2), 0.0)

    def fill(self, layer: int, rows: Tensor | slice, keys: Tensor, values: Tensor) -> None:
        for held, states in zip(self.prompt_keys_values[layer], (keys, values), strict=True):
            whole = F.pad(states, (0, 0, 0, -states.shape[2] % self.parts))
            parts = whole.unflatten(2, (-1, self.parts)).permute(0, 3, 1, 2, 4)
            held[rows, :, :, : parts.shape[3]] = parts.to(held.dtype)

    def look(self, layer: int, asking: Tensor) -> Tensor:
        split = asking[:, None].expand(-1, self.parts, -1, -1, -1).flatten(0, 1)
        keys, values = self.prompt_keys_values[layer].flatten(1, 2)
        mask = self.prompt_mask.flatten(0, 1)[:, None, None]
        out, sums = with_log_sum_exp(split, keys, values, mask)
        prompt = out.unflatten(0, (-1, self.parts)), sums.unflatten(0, (-1, self.parts))
        keys, values = self.seen[layer]
        own = with_log_sum_exp(asking, keys, values, self.seen_mask)
        return merge([prompt, (own[0][:, None], own[1][:, None])])


def hidden(dtype: torch.dtype) -> float:
    """What a mask adds where nothing is seen: half the least number, since some kernels multiply it by log2(e)."""
    return torch.finfo(dtype).min / 2
