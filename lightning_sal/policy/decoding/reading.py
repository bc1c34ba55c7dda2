"""Reading prompts: their keys and values go into the memory of a rollout.

Prompts are padded on the right here, so that no token sees padding and no mask is needed.

Legend: P prompts of at most L tokens, C hidden size, H query heads, K key heads, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.decoding.memory import Memory
from lightning_sal.policy.prompts import FastPrompts

_BUCKET = 1.25  # Prompts are read together up to this ratio of the longest to the shortest


def read_prompts(backbone: Backbone, prompts: FastPrompts, memory: Memory, order: Tensor | None) -> Tensor:
    """(P, C) hidden states of the last prompt tokens before the last norm; prompts of like length go through together.

    Args:
        backbone: What reads.
        prompts: P prompts.
        memory: Gets keys and values of their tokens.
        order: (D,) in which order the memory has the numbers of a key; None for the model's own.
    """
    rest, hidden = prompts.by_length(), [torch.empty(0)] * len(prompts)
    while rest:
        shortest = prompts.lengths[rest[0]]
        rows = sorted(row for row in rest if prompts.lengths[row] <= _BUCKET * shortest)
        rest = [row for row in rest if row not in rows]
        whole = len(rows) == len(prompts)
        part = _padded_right(prompts if whole else prompts.select(rows))
        at = slice(None) if whole else torch.tensor(rows, device=part.ids.device)
        for row, states in zip(rows, _read(backbone, part, Reading(memory, at, order)), strict=True):
            hidden[row] = states
    return torch.stack(hidden)


@dataclass(frozen=True, slots=True)
class Reading:
    """What tokens of prompts see: those before them. Their keys and values are kept.

    Args:
        memory: Where.
        rows: Which prompts these are.
        order: See `read_prompts`.
    """

    memory: Memory
    rows: Tensor | slice
    order: Tensor | None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """See `lightning_sal.policy.attention.View.attend`."""
        self.memory.fill(layer, self.rows, key if self.order is None else key[..., self.order], value)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
        return seen.transpose(1, 2)


def _read(backbone: Backbone, prompts: FastPrompts, sees: Reading) -> Tensor:
    kept: list[Tensor] = []
    with backbone.before_last_norm(kept.append):
        embeds, features = backbone.prompt_embeds(prompts), backbone.deep_features(prompts)
        backbone.read(embeds, prompts.positions, sees, **features)
    last = torch.tensor(prompts.lengths, device=prompts.ids.device) - 1
    return kept[0][torch.arange(len(last), device=last.device), last]


def _padded_right(prompts: FastPrompts) -> FastPrompts:
    width = prompts.ids.shape[1]
    if min(prompts.lengths) == width:
        return prompts
    lengths = torch.tensor(prompts.lengths, device=prompts.ids.device)
    at = (
        torch.arange(width, device=lengths.device) - lengths[:, None]
    ) % width  # (P, L): padding is gone round to the end
    return FastPrompts(
        prompts.ids.gather(1, at),
        prompts.mask.gather(1, at),
        prompts.positions.gather(2, at.expand(3, -1, -1)),
        prompts.following,
        prompts.visual,
        prompts.lengths,
    )
