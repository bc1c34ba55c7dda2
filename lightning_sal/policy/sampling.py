"""Sampling: each prompt is read once, and its G responses are generated together behind it.

Legend: P prompts, G responses a prompt, L prompt tokens, T response tokens, V vocabulary, C hidden size. On the CPU P and G
shrink while responses end; elsewhere shapes stay, and lengths are rounded up, so that a step can be captured.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.decoding.decoder import Decoder
from lightning_sal.policy.decoding.graphs import Stepper
from lightning_sal.policy.decoding.memory import Shape
from lightning_sal.policy.decoding.reading import read_prompts
from lightning_sal.policy.decoding.state import State
from lightning_sal.policy.prompts import FastPrompts

Result = TypeVar("Result")

_SHRINK = 0.75  # Rows are packed anew when no more than this share is left: packing copies the memory


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


@dataclass(frozen=True, slots=True)
class Pace:
    """What differs between a CPU, where each operation costs, and an accelerator, where each wait and each new shape does.

    Args:
        prompt: What lengths of prompts are rounded up to.
        response: What the numbers of tokens of responses that a step looks at are rounded up to.
        look: Steps between two looks at what has ended.
        packs: Whether rows of ended responses are left out.
    """

    prompt: int
    response: int
    look: int
    packs: bool


_PACES = {"cpu": Pace(prompt=1, response=1, look=1, packs=True)}
_ACCELERATOR = Pace(prompt=256, response=128, look=16, packs=False)


def generate(
    backbone: Backbone,
    decoder: Decoder,
    prompts: FastPrompts,
    stepper: Stepper,
    *,
    responses: int,
    max_new_tokens: int,
    temperature: float | None,
    stop: Sequence[int],
    pad: int,
    draws: Tensor | None,
) -> Generator[Tensor, None, Sampled]:
    """Generate G responses behind each prompt until all have ended; `drain` gives the result at once.

    Args:
        backbone: Reads the prompts.
        decoder: Its layers, taken apart.
        prompts: P prompts.
        stepper: Does the steps.
        responses: G.
        max_new_tokens: Most tokens of a response.
        temperature: > 0; None takes the likeliest token.
        stop: Ids that end a response.
        pad: Id that fills up ended responses.
        draws: (P G, max_new_tokens) uniform on [0, 1), one a token; None where the likeliest is taken. Since each token has
            its own, a response does not depend on when others end.

    Yields:
        (P, G) tokens after each step, those of ended responses included; P and G shrink as rows are packed.
    """
    (count, width), device = prompts.ids.shape, prompts.ids.device
    pace = _PACES.get(device.type, _ACCELERATOR)
    shape = Shape(count, responses, _rounded(width, pace.prompt), _rounded(max_new_tokens, pace.response))
    draws = None if draws is None else draws.view(count, responses, -1)
    autocast = torch.is_autocast_enabled(device.type)

    def plainly() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, enabled=False) if autocast else nullcontext()

    with stepper.mode():
        stops = torch.zeros_like(decoder.suppressed)
        stops[list(stop)] = True
        parts = parts_of(shape, decoder.key_heads, min(prompts.lengths), device)
        key = (shape, parts, temperature, tuple(stop))
        state = stepper.state(key, lambda: State(decoder, shape, stops, temperature, parts))
        hidden = read_prompts(backbone, prompts, state.memory, decoder.order)
        real = torch.arange(shape.length, device=device) < torch.tensor(prompts.lengths, device=device)[:, None]
        with plainly():
            state.begin(hidden, real, prompts.following, draws)
    written, look, living = _Written(count, responses, state, pad), Look(device), state.alive.numel()
    for done in range(1, max_new_tokens + 1):
        yield state.tokens[:, :, done - 1]
        before = living
        if done % pace.look == 0:
            living = look.living(state.alive)
        if done == max_new_tokens or not living:
            break
        if pace.packs and living < before and (packed := _packing(state.alive)) is not None:
            state = written.packed(state, *packed, done)
        with stepper.mode(), plainly():
            stepper.advance(state, min(_rounded(done, pace.response), shape.steps))
    return written.all(state, done, stops)


def drain(steps: Generator[Any, None, Result]) -> Result:
    """What a generator returns once it has ended."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def parts_of(shape: Shape, key_heads: int, shortest: int, device: torch.device) -> int:
    """In how many parts prompts are looked at: enough that each processor of a GPU has some, none of under 512 tokens."""
    if device.type == "cpu":
        return 1
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 128
    most = min(processors // (shape.prompts * key_heads), shape.length // 512, shortest, 16)
    return 1 << max(0, most.bit_length() - 1)  # a power of two, which divides the length


class Look:
    """How many responses have not ended. On a GPU the answer is that of the look before, so that nothing waits for it.

    Args:
        device: Where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.late = device.type == "cuda"
        self.before: tuple[Tensor, torch.cuda.Event] | None = None

    def living(self, alive: Tensor) -> int:
        """Of (P, G) bool."""
        count = alive.sum()
        if not self.late:
            return int(count)
        before, event = self.before, torch.cuda.Event()
        self.before = count.to("cpu", non_blocking=True), event
        event.record()
        if before is None:
            return alive.numel()
        before[1].synchronize()
        return int(before[0])


class _Written:
    """The tokens of all responses, put in their places when rows are packed and at the end.

    Args:
        prompts: P.
        responses: G.
        state: Of all of them.
        pad: Id that fills up ended responses.
    """

    def __init__(self, prompts: int, responses: int, state: State, pad: int) -> None:
        count, device = prompts * responses, state.tokens.device
        self.rows, self.pad = torch.arange(count, device=device).view(prompts, responses), pad
        self.tokens = state.tokens.new_zeros(count, state.shape.steps)
        self.probabilities = state.probabilities.new_zeros(count, state.shape.steps)

    def packed(self, state: State, which: Tensor, slots: Tensor, done: int) -> State:
        """Go on with fewer rows."""
        self._place(state, done)
        self.rows = self.rows[which].gather(1, slots)
        return state.packed(which, slots, done - 1)

    def all(self, state: State, done: int, stops: Tensor) -> Sampled:
        """All responses, each up to its end."""
        self._place(state, done)
        tokens, ends = self.tokens[:, :done], stops[self.tokens[:, :done]]
        mask = (ends.cumsum(1) - ends.long()) == 0
        length = int(mask.sum(1).max())
        tokens, mask, ends = tokens[:, :length], mask[:, :length], ends[:, :length]
        logp = self.probabilities[:, :length].log().to(torch.float32)
        return Sampled(tokens.masked_fill(~mask, self.pad), mask, logp.masked_fill(~mask, 0.0), ~(ends & mask).any(1))

    def _place(self, state: State, done: int) -> None:
        rows = self.rows.flatten()
        self.tokens[rows, :done] = state.tokens[..., :done].flatten(0, 1)
        self.probabilities[rows, :done] = state.probabilities[..., :done].flatten(0, 1)


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


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
