"""Where a response came from: how much each token of the prompt adds to the logits of some of its tokens.

With the scales of the norms held as they are, a logit is linear in what each layer's attention adds to the hidden state:

    z_a = sum over layers l, heads h, tokens p of  alpha_l,h(a, p) (W_O v_l,h(p)) . g_a / rms(h_a) + what no token owns

where a is the query that predicts the token, alpha its attention row, v values, h_a the last hidden state, and g_a the
token's row of the output layer times the weight of the last norm. A term of the sum is the direct contribution of token p.
Through the reasoning, alpha(a, p) gives way to sum over reasoning tokens j of alpha(a, j) alpha(j, p), in the same layer and
head. The terms of the visual tokens, summed over the tokens of the answer, are its attribution map ("Saliency-R1", 2026;
Kobayashi et al. 2020, arXiv:2004.10102, for the terms).

Nothing of the size (answer x image x hidden) is made: g_a goes backwards through W_O once, to the width of the heads, and
only the attention rows that are asked for are computed, some heads at a time.

Legend: P prompts of L tokens, G responses a prompt of T tokens, B = P G, A tokens asked about and J reasoning tokens of a
response, H heads, K key heads, D their width, C hidden size. Row r of a response predicts its token r.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_sal.policy.attention import View
from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.prompts import FastPrompts

Convention = Literal["key", "emit"]
Span = tuple[int, int]  # first and last token, both included

_MOST_NUMBERS = 2**24  # of attention rows that stand in memory at once: 64 MiB in float32


@dataclass(frozen=True, slots=True)
class Asked:
    """Which tokens of B responses are explained, and through which.

    Args:
        tokens: (B, A) places in the response; padded by 0.
        reasoning: (B, J) places of the reasoning tokens, likewise; None where all contributions are direct.
        reasons: (B, J) bool, False on padding; a response without any has direct contributions.
        whole: Whether each response has some.
        convention: Which row stands for a reasoning token when it looks at the image: "key" the one at the token, whose
            key the answer looked at; "emit" the one before, which predicted it.
    """

    tokens: Tensor
    reasoning: Tensor | None = None
    reasons: Tensor | None = None
    whole: bool = False
    convention: Convention = "key"

    @classmethod
    def of(
        cls,
        tokens: Sequence[Sequence[int]],
        reasoning: Sequence[Span | None],
        convention: Convention,
        device: torch.device,
    ) -> Asked:
        """Of places in each response, and the span of its reasoning; None for direct contributions."""
        if convention not in ("key", "emit"):
            raise ValueError(f"unknown convention '{convention}': use key or emit")
        places, _ = _padded(tokens, device)  # what padding gets is never read
        if not any(reasoning):
            return cls(places, convention=convention)
        spans, reasons = _padded([range(span[0], span[1] + 1) if span else () for span in reasoning], device)
        return cls(places, spans, reasons, all(reasoning), convention)


@dataclass(slots=True)
class Traced:
    """A view through which a forward pass adds up contributions, layer by layer.

    Args:
        sees: What tokens see.
        backbone: Whose layers they are.
        real: (P, L) bool, False on padding of prompts.
        padded: Whether there is any.
        asked: Which tokens are explained.
        directions: (B, A, C) g_a; None adds up attention alone.
        keep: Whether weights and values of each layer are kept.
        prompt: (B, A, L) contributions of prompt tokens, not yet divided by rms(h_a).
        own: (B, A, T) those of the response's tokens; only direct ones.
        layers: Of each layer its weights (P, K, G, H / K, A, L) and values (P, K, L, D), where they are kept.
    """

    sees: View
    backbone: Backbone
    real: Tensor
    padded: bool
    asked: Asked
    directions: Tensor | None
    keep: bool = False
    prompt: Tensor | None = None
    own: Tensor | None = None
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """See `View.attend`."""
        self._add(layer, query, key, value, query.shape[-1] ** -0.5 if scale is None else scale)
        return self.sees.attend(layer, query, key, value, scale)

    def _add(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> None:
        (prompts, heads, size, depth), (_, length) = query.shape, self.real.shape
        rows, asked = self.asked.tokens.shape
        shared = heads // key.shape[1]
        wide = torch.promote_types(query.dtype, torch.float32)
        if self.prompt is None:
            self.prompt = query.new_zeros(rows, asked, length, dtype=wide)
            if self.asked.reasoning is None:
                steps = (size - length) * prompts // rows
                self.own = query.new_zeros(rows, asked, steps, dtype=wide)
        back = None
        if self.directions is not None:
            back = transposed(self.backbone.out_projections[layer], self.directions, heads * depth, query.dtype)
            # (P, K, G, H / K, A, D)
            back = back.to(wide).view(prompts, rows // prompts, asked, -1, shared, depth).permute(0, 3, 1, 4, 2, 5)
        kept = []
        for some, group in self._parts(prompts, key.shape[1], shared):
            several = slice(group.start * shared, group.stop * shared)
            responses = slice(some.start * rows // prompts, some.stop * rows // prompts)
            part = _Part(query[some, several], key[some, group], self.real[some], self.padded, rows // prompts, scale)
            towards_prompt, towards_own = self._weights(part, responses)
            if self.keep:
                kept.append(towards_prompt)
            values = value[some, group].to(wide)
            backwards = None if back is None else back[some, group]
            self.prompt[responses] += _weighted(towards_prompt, part.prompt(values), backwards)
            if self.own is not None and towards_own is not None:
                self.own[responses] += _weighted(towards_own, part.own(values), backwards)
        if self.keep:
            self.layers.append((torch.cat(kept, dim=1), value[:, :, :length].to(wide)))

    def _weights(self, part: _Part, responses: slice) -> tuple[Tensor, Tensor | None]:
        """Weights (p, k, G, s, A, L) of prompt tokens, and (p, k, G, s, A, T) of own ones where contributions are direct."""
        asked = self.asked
        to_prompt, to_own = part.attention(asked.tokens[responses])
        if asked.reasoning is None or asked.reasons is None:
            return to_prompt, to_own
        places, reasons = (each[responses].view(part.shape) for each in (asked.reasoning, asked.reasons))
        at = places[:, None, :, None, None].expand(*to_own.shape[:5], -1)
        first = to_own.gather(5, at) * reasons[:, None, :, None, None]
        second, _ = part.attention(asked.reasoning[responses] + (asked.convention == "key"))
        through = first @ second
        if not asked.whole:
            through = torch.where(reasons.any(-1)[:, None, :, None, None, None], through, to_prompt)
        return through, None

    def _parts(self, prompts: int, key_heads: int, shared: int) -> Iterator[tuple[slice, slice]]:
        """Prompts and key heads whose attention rows are computed at once."""
        rows, asked = self.asked.tokens.shape
        reasoning = 0 if self.asked.reasoning is None else self.asked.reasoning.shape[1]
        one = rows // prompts * shared * (2 * asked + reasoning) * 2 * self.real.shape[1]  # of a prompt and a key head
        at_once = max(1, _MOST_NUMBERS // max(one, 1))
        heads, many = min(key_heads, at_once), max(1, at_once // key_heads)
        for p in range(0, prompts, many):
            for h in range(0, key_heads, heads):
                yield slice(p, min(p + many, prompts)), slice(h, min(h + heads, key_heads))


class _Part:
    """Queries and keys of some prompts, with their responses, and of some heads; s = H / K query heads share a key head.

    Args:
        query: (p, k s, L + G T, D).
        key: (p, k, L + G T, D).
        real: (p, L) bool.
        padded: Whether it is False anywhere.
        responses: G.
        scale: What scores are multiplied by.
    """

    def __init__(self, query: Tensor, key: Tensor, real: Tensor, padded: bool, responses: int, scale: float) -> None:
        self.wide = torch.promote_types(query.dtype, torch.float32)
        self.query, self.key, self.real, self.responses = query, key.to(self.wide), real, responses
        self.padded, self.scale, self.length = padded, scale, real.shape[1]
        self.steps = (query.shape[2] - self.length) // responses
        self.shared = query.shape[1] // key.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what each response has any number of: (p, G, -1)."""
        return len(self.real), self.responses, -1

    def prompt(self, states: Tensor) -> Tensor:
        """(p, k, L + G T, D) -> (p, k, 1, L, D)."""
        return states[:, :, None, : self.length]

    def own(self, states: Tensor) -> Tensor:
        """(p, k, L + G T, D) -> (p, k, G, T, D)."""
        return states[:, :, self.length :].unflatten(2, (self.responses, self.steps))

    def attention(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of some rows of each response: (p, k, G, s, R, L) to its prompt and (p, k, G, s, R, T) to itself.

        Args:
            rows: (b, R) which; 0 is the last token of the prompt, r > 0 the response's token r - 1.
        """
        heads, depth = self.query.shape[1], self.query.shape[3]
        rows = rows.view(self.shape)
        at = _places(rows, self.length, self.steps)
        asking = self.query.gather(2, at[:, None, :, None].expand(-1, heads, -1, depth)).to(self.wide) * self.scale
        # (p, k, G, s R, D): query heads that share a key head stand among the queries
        asking = asking.view(len(rows), -1, self.shared, self.responses, rows.shape[2], depth)
        asking = asking.transpose(2, 3).flatten(3, 4)
        to_prompt = asking @ self.prompt(self.key).transpose(-1, -2)
        if self.padded:
            to_prompt = to_prompt.masked_fill_(~self.real[:, None, None, None], float("-inf"))
        to_own = (asking @ self.own(self.key).transpose(-1, -2)).unflatten(3, (self.shared, -1))
        seen = torch.arange(self.steps, device=rows.device) < rows[..., None]  # (p, G, R, T)
        to_own = to_own.masked_fill_(~seen[:, None, :, None], float("-inf"))
        to_prompt = to_prompt.unflatten(3, (self.shared, -1))
        peak = torch.maximum(to_prompt.amax(-1, keepdim=True), to_own.amax(-1, keepdim=True))
        both = [scores.sub_(peak).exp_() for scores in (to_prompt, to_own)]
        whole = both[0].sum(-1, keepdim=True) + both[1].sum(-1, keepdim=True)
        return both[0].div_(whole), both[1].div_(whole)


def _weighted(weights: Tensor, values: Tensor, backwards: Tensor | None) -> Tensor:
    """Weights of tokens times what each adds to the logits, summed over heads: (b, A, N).

    Args:
        weights: (p, k, G, s, A, N).
        values: (p, k, G or 1, N, D).
        backwards: (p, k, G, s, A, D) what a value is multiplied by; None for 1.
    """
    if backwards is not None:
        logits = backwards.flatten(3, 4) @ values.transpose(-1, -2)  # (p, k, G, s A, N)
        weights = weights * logits.view(weights.shape)
    return weights.sum((1, 3)).flatten(0, 1)


def transposed(linear: Any, cotangents: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Vectors multiplied by a linear layer backwards, (..., out) -> (..., in): adapters and packed weights as they are.

    Args:
        linear: Of inputs in `dtype`, without a bias that matters.
        cotangents: (..., out).
        width: Inputs of the layer.
        dtype: Of what it is given.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = torch.zeros(*cotangents.shape[:-1], width, dtype=dtype, device=cotangents.device, requires_grad=True)
        end = linear(start)
        (found,) = torch.autograd.grad(end, start, cotangents.detach().clone().to(end.dtype))
    return found


@contextmanager
def _rms_of(backbone: Backbone, at: Tensor, kept: list[Tensor]) -> Iterator[None]:
    """Inside, a reading leaves (P, N, 1) of rms(h) of its tokens (P, N) `at` in `kept`."""

    def seen(states: Tensor) -> None:
        wide = torch.promote_types(states.dtype, torch.float32)
        chosen = states.gather(1, at[..., None].expand(-1, -1, states.shape[-1])).to(wide)
        kept.append(backbone.rms(chosen))

    with backbone.before_last_norm(seen):
        yield


def trace(
    backbone: Backbone,
    prompts: FastPrompts,
    reading: Mapping[str, Any],
    asked: Asked,
    ids: Tensor,
    *,
    attention_only: bool = False,
    keep: bool = False,
) -> tuple[Traced, Tensor]:
    """Read responses behind their prompts and add up contributions to the logits of the tokens that are asked about.

    Args:
        backbone: What reads; its attention must be ours.
        prompts: P prompts.
        reading: What `Backbone.read` gets of P sequences (P, L + G T, C), its view included.
        asked: Which tokens are explained.
        ids: (B, A) their ids.
        attention_only: Whether attention alone is added up.
        keep: See `Traced`.

    Returns:
        What was added up; and (B, A, 1) rms(h_a), 1 for attention alone.
    """
    backbone.require_attention_rows()
    embeds, sees, rows = reading["embeds"], reading["sees"], asked.tokens
    count, length = prompts.ids.shape
    steps = (embeds.shape[1] - length) * count // len(rows)
    at = _places(rows.view(count, -1, rows.shape[1]), length, steps)
    wide = torch.promote_types(embeds.dtype, torch.float32)
    directions = None if attention_only else backbone.directions(ids).to(wide)
    traced = Traced(sees, backbone, prompts.mask, min(prompts.lengths) < length, asked, directions, keep)
    scales: list[Tensor] = []
    with _rms_of(backbone, at, scales):
        backbone.read(**{**reading, "sees": traced})
    scale = torch.ones_like(rows[..., None], dtype=wide) if attention_only else scales[0].view(*rows.shape, 1)
    return traced, scale


def _places(rows: Tensor, length: int, steps: int) -> Tensor:
    """Where rows (p, G, R) of responses stand in the sequences of their prompts: (p, G R)."""
    number = torch.arange(rows.shape[1], device=rows.device)[:, None] * steps
    return (length - 1 + rows + torch.where(rows > 0, number, 0)).flatten(1)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, N) places of rows of unequal length, 0 behind their ends, and their bool mask."""
    width = max(1, *map(len, rows))
    places = [[*row, *[0] * (width - len(row))] for row in rows]
    real = [[True] * len(row) + [False] * (width - len(row)) for row in rows]
    found = torch.tensor(places, dtype=torch.long), torch.tensor(real, dtype=torch.bool)
    return found[0].to(device, non_blocking=True), found[1].to(device, non_blocking=True)
