"""Sampling: each prompt is read once, and its G responses are generated together behind it.

The G responses to a prompt are one sequence for the attention: the prompt, then in each step a column of G tokens, with a
mask under which a response sees the prompt and itself. So prompt keys and values stand in memory once, whatever G is.

Legend: P prompts, G responses a prompt, L prompt tokens (padded left), T response tokens, V vocabulary, C hidden size, H
key heads, D their width. P and G shrink while responses end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_sal.policy.attention import additive
from lightning_sal.policy.cache import PackedCache
from lightning_sal.policy.prompts import Prompts

# (embeds (P, S, C), additive mask (P, 1, S, keys), positions (3, P, S), cache) -> hidden states (P, S, C)
Advance = Callable[[Tensor, Tensor, Tensor, PackedCache], Tensor]

Result = TypeVar("Result")

_BLOCK = 64  # Steps that masks are made for at once
_SHRINK = 0.75  # Rows are packed anew when no more than this share is left: packing copies the cache
_CHECK_EVERY = {"cpu": 1}  # Steps between looks at what has ended; on an accelerator each look waits for it
_BUCKET = 1.25  # Prompts are read together up to this ratio of the longest to the shortest


@dataclass(frozen=True, slots=True)
class Sampled:
    """P x G responses, those to a prompt side by side.

    Args:
        tokens: (P G, T) ids, padded right.
        mask: (P G, T) bool, True on response tokens.
        logp: (P G, T) float32 in nats, 0 where `mask` is False.
        truncated: (P G,) bool, True where no end-of-turn token came.
    """

    tokens: Tensor
    mask: Tensor
    logp: Tensor
    truncated: Tensor


def read_prompts(
    prompts: Prompts, read: Callable[[Prompts, Tensor, PackedCache], Tensor]
) -> tuple[Tensor, PackedCache]:
    """Hidden states (P, C) of the last prompt tokens, and the cache; prompts of like length go through together."""
    order, width = prompts.by_length(), prompts.ids.shape[1]
    cache, hidden = PackedCache(1), [torch.empty(0)] * len(prompts)
    while order:
        shortest = prompts.lengths[order[0]]
        rows = [row for row in order if prompts.lengths[row] <= _BUCKET * shortest]
        order, part, own = order[len(rows) :], prompts.select(rows), PackedCache(1)
        length = part.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=part.ids.device).tril()
        last = read(part, additive(causal & part.mask[:, None, None], torch.float32), own)[:, -1]
        for at, row in enumerate(rows):
            hidden[row] = last[at]
        if len(rows) == len(prompts):
            return torch.stack(hidden), own if rows == list(range(len(rows))) else _ordered(own, rows)
        _merge(cache, own, rows, len(prompts), width)
    return torch.stack(hidden), cache


def _ordered(cache: PackedCache, rows: list[int]) -> PackedCache:
    at = torch.tensor(rows).argsort().to(cache.keys[0].device)
    for held in (cache.keys, cache.values):
        held.update({layer: states[at] for layer, states in held.items()})
    return cache


def _merge(cache: PackedCache, own: PackedCache, rows: list[int], prompts: int, width: int) -> None:
    """Put a bucket's keys and values, aligned right, into those of all prompts."""
    for mine, theirs in ((cache.keys, own.keys), (cache.values, own.values)):
        for layer, states in theirs.items():
            if layer not in mine:
                mine[layer] = states.new_zeros(prompts, states.shape[1], width, states.shape[3])
            mine[layer][rows, :, -states.shape[2] :] = states
            cache.used[layer] = width


def generate(
    prompts: Prompts,
    hidden: Tensor,
    cache: PackedCache,
    *,
    responses: int,
    max_new_tokens: int,
    logits: Callable[[Tensor], Tensor],
    embed: Callable[[Tensor], Tensor],
    advance: Advance,
    stop: Tensor,
    pad: int,
    draws: Tensor | None,
) -> Generator[Tensor, None, Sampled]:
    """Generate G responses behind each prompt until all have ended; `drain` gives the result at once.

    Args:
        prompts: P prompts.
        hidden: (P, C) of their last tokens.
        cache: Of their tokens.
        responses: G.
        max_new_tokens: Most tokens of a response.
        logits: (..., C) hidden states -> (..., V) float32 logits at the temperature.
        embed: Ids -> embeddings.
        advance: One forward pass.
        stop: Ids that end a response.
        pad: Id that fills up ended responses.
        draws: (P G, max_new_tokens) uniform on [0, 1), one a token; None takes the likeliest token. Since each token has
            its own, a response does not depend on when others end.

    Yields:
        (P, G) tokens after each step, those of ended responses included; P and G shrink as rows are packed.
    """
    count, width, device = len(prompts), prompts.ids.shape[1], hidden.device
    cache.groups = responses
    written = _Written(torch.arange(count * responses, device=device).view(count, responses), max_new_tokens, pad)
    alive = torch.ones(count, responses, dtype=torch.bool, device=device)
    draws = None if draws is None else draws.view(count, responses, -1)
    hidden = hidden[:, None].expand(-1, responses, -1)
    reading, following, allowed = prompts.mask, prompts.following, torch.empty(0)
    every, living = _CHECK_EVERY.get(device.type, 8), alive.numel()
    for step in range(max_new_tokens):
        token, logp = _choose(logits(hidden), None if draws is None else draws[..., step])
        written.add(token, logp, alive)
        yield token
        alive = alive & (token[..., None] != stop).all(-1)
        if step + 1 == max_new_tokens:
            break
        before = living
        if (step + 1) % every == 0:
            living = int(alive.sum())
            if not living:
                break
        if living < before and (packed := _packing(alive)) is not None:
            which, slots = packed
            cache.pack(width, which, slots)
            written.pack(which, slots)
            alive, token = (t[which].gather(1, slots) for t in (alive, token))
            if draws is not None:
                draws = draws[which].gather(1, slots[..., None].expand(-1, -1, max_new_tokens))
            reading, following, allowed = reading[which], following[which], torch.empty(0)
        if allowed.shape[-1] < width + (step + 1) * alive.shape[1]:
            allowed = _visible(reading, alive.shape[1], step + _BLOCK, hidden.dtype)
        hidden = advance(
            embed(token),
            allowed[..., : width + (step + 1) * alive.shape[1]],
            (following[:, None] + step).expand(3, -1, alive.shape[1]),
            cache,
        )
    tokens, mask, logps = written.all()
    ended = (mask & torch.isin(tokens, stop)).any(1)
    length = int(mask.sum(1).max())
    return Sampled(tokens[:, :length], mask[:, :length], logps[:, :length], ~ended)


def drain(steps: Generator[Any, None, Result]) -> Result:
    """What a generator returns once it has ended."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class _Written:
    """The tokens generated so far, put in their places when rows are packed and at the end.

    Args:
        rows: (P, G) number of each response.
        steps: Most tokens of a response.
        pad: Id that fills up ended responses.
    """

    def __init__(self, rows: Tensor, steps: int, pad: int) -> None:
        self.rows, self.done = rows, 0
        self.tokens = torch.full((rows.numel(), steps), pad, device=rows.device)
        self.mask = torch.zeros_like(self.tokens, dtype=torch.bool)
        self.logps = torch.zeros(self.tokens.shape, device=rows.device)
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, token: Tensor, logp: Tensor, alive: Tensor) -> None:
        """A column of (P, G) tokens; those of responses that have ended do not count."""
        self.steps.append((token, logp, alive))

    def pack(self, which: Tensor, slots: Tensor) -> None:
        """Go on with fewer rows."""
        self._place()
        self.rows = self.rows[which].gather(1, slots)

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, mask and log-probabilities of all rows."""
        self._place()
        return self.tokens, self.mask, self.logps

    def _place(self) -> None:
        if not self.steps:
            return
        token, logp, alive = (torch.stack(column, dim=-1).flatten(0, 1) for column in zip(*self.steps, strict=True))
        at = (self.rows.flatten()[:, None], torch.arange(self.done, self.done + len(self.steps), device=alive.device))
        self.tokens[at] = torch.where(alive, token, self.tokens[at])
        self.mask[at] = alive
        self.logps[at] = torch.where(alive, logp.to(self.logps.dtype), 0.0)
        self.done += len(self.steps)
        self.steps = []


def _visible(reading: Tensor, responses: int, steps: int, dtype: torch.dtype) -> Tensor:
    """(P, 1, G, L + steps G) additive mask: each response sees the prompt and its own tokens."""
    own = torch.eye(responses, dtype=torch.bool, device=reading.device).repeat(1, steps)
    prompt = reading[:, None].expand(-1, responses, -1)
    return additive(torch.cat([prompt, own.expand(len(reading), -1, -1)], dim=2), dtype)[:, None]


def _packing(alive: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which (P',) prompts and (P', G') slots hold all living responses, or None where packing would gain little.

    A prompt with fewer than G' living responses keeps ended ones in its last slots.
    """
    living = alive.sum(1)
    kept, most = int((living > 0).sum()), int(living.max())
    if not kept or kept * most > _SHRINK * alive.numel():
        return None
    which = living.nonzero()[:, 0]
    return which, alive[which].int().argsort(dim=1, descending=True, stable=True)[:, :most]


def _choose(scores: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (P, G) by inverse transform sampling, or the likeliest, and their log-probabilities."""
    probability = scores.softmax(dim=-1)
    if draws is None:
        token = probability.argmax(dim=-1)
    else:
        mass = _running_sum(probability)
        # Below 1 by more than rounding, so that the last token reached has a probability above 0.
        point = draws.clamp(max=1 - 2.0**-22) * mass[..., -1]
        token = torch.searchsorted(mass, point[..., None], right=True)[..., 0]
        token = token.clamp(max=scores.shape[-1] - 1)  # of scores that are not finite, so that the loss tells of them
    return token, probability.gather(-1, token[..., None])[..., 0].log()


def _running_sum(probability: Tensor) -> Tensor:
    """Cumulative sums over the last dimension, of whole numbers where determinism is asked for: CUDA adds floats in no
    fixed order."""
    if torch.are_deterministic_algorithms_enabled():
        return (probability.double() * 2.0**52).long().cumsum(dim=-1).double() / 2.0**52
    return probability.cumsum(dim=-1)
