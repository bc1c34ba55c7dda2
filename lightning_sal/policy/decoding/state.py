"""A rollout under way: all that a decoding step reads and writes, at places that stay.

A step neither waits for the device nor copies from the CPU, and two steps are the same operations on the same buffers. So a
CUDA graph can take it.

Legend: P prompts of at most L tokens, G responses a prompt of at most T tokens, N = P G, C hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sal.policy.decoding.decoder import Decoder
from lightning_sal.policy.decoding.memory import Heads, Memory, PartedMemory, Shape


class State:
    """A rollout.

    Args:
        decoder: The model.
        shape: Sizes.
        stops: (V,) bool, True on ids that end a response.
        temperature: > 0; None takes the likeliest token.
        parts: In how many parts prompts are looked at; 1 for one attention over prompt and response.
    """

    def __init__(
        self,
        decoder: Decoder,
        shape: Shape,
        stops: Tensor,
        temperature: float | None,
        parts: int = 1,
    ) -> None:
        self.decoder, self.shape, self.temperature = decoder, shape, temperature
        self.goes_on = ~stops
        heads = Heads(len(decoder.layers), decoder.key_heads, decoder.shared, decoder.depth)
        on = torch.empty(0, dtype=decoder.dtype, device=stops.device)
        self.memory = Memory(shape, heads, on) if parts == 1 else PartedMemory(shape, heads, on, parts)
        rows = (shape.prompts, shape.responses)
        self.tokens = torch.zeros(*rows, shape.steps, dtype=torch.long, device=on.device)
        wide = torch.promote_types(decoder.dtype, torch.float32)
        self.probabilities = torch.zeros(*rows, shape.steps, dtype=wide, device=on.device)
        self.draws = torch.zeros(*rows, shape.steps, device=on.device)
        self.alive = torch.ones(rows, dtype=torch.bool, device=on.device)
        self.step = torch.zeros(1, dtype=torch.long, device=on.device)
        self.turns = decoder.rotations(torch.zeros(shape.prompts, shape.steps, dtype=torch.long, device=on.device))

    def begin(self, hidden: Tensor, real: Tensor, following: Tensor, draws: Tensor | None) -> None:
        """Start anew behind prompts whose keys and values are in the memory, and choose the first tokens.

        Args:
            hidden: (P, C) of their last tokens, before the last norm.
            real: (P, L) bool, True on their tokens.
            following: (P,) position of the first response token.
            draws: (P, G, T) uniform on [0, 1), one a token; None where the likeliest is taken.
        """
        self.memory.begin(real)
        at = following[:, None] + torch.arange(self.shape.steps, device=following.device)
        self.turns.copy_(self.decoder.rotations(at))
        self.alive.fill_(True)
        self.step.zero_()
        if draws is not None:
            # Below 1 by more than rounding, so that the last token reached has a probability above 0.
            self.draws[..., : draws.shape[-1]] = draws.clamp(max=1 - 2.0**-22)
        self._choose(hidden.repeat_interleave(self.shape.responses, dim=0))

    def advance(self) -> None:
        """Read the tokens that were chosen, and choose the next."""
        token = self.tokens.index_select(2, self.step).flatten()
        turn = self.turns.index_select(1, self.step)[:, 0]
        self.memory.open(self.step)
        hidden = self.decoder.forward(self.decoder.embed(token), turn, self.memory.attend)
        self.step.add_(1)
        self._choose(hidden)

    def _choose(self, hidden: Tensor) -> None:
        """A token of each response from its hidden state (N, C)."""
        scores = self.decoder.logits(hidden).view(*self.alive.shape, -1)
        if self.temperature is None:
            token, probability = chosen(scores, None)
        else:
            if self.temperature != 1:
                scores = scores / self.temperature
            token, probability = chosen(scores, self.draws.index_select(2, self.step)[..., 0])
        self.tokens.index_copy_(2, self.step, token[..., None])
        self.probabilities.index_copy_(2, self.step, probability[..., None].to(self.probabilities.dtype))
        self.alive.logical_and_(self.goes_on[token])

    def packed(self, which: Tensor, slots: Tensor, steps: int) -> State:
        """The state of (P',) prompts and of each the responses in (P', G') slots, which have said so many tokens.

        Responses in other places are lost. The memory is that of `Memory`; parts are never packed.
        """
        shape = Shape(len(which), slots.shape[1], self.shape.length, self.shape.steps)
        small: State = object.__new__(State)
        small.decoder, small.goes_on, small.temperature = self.decoder, self.goes_on, self.temperature
        small.shape, small.memory = shape, self.memory.packed(which, slots, steps)

        def rows(states: Tensor) -> Tensor:
            index = slots.view(*slots.shape, *[1] * (states.ndim - 2)).expand(-1, -1, *states.shape[2:])
            return states[which].gather(1, index)

        small.tokens, small.probabilities, small.draws = map(rows, (self.tokens, self.probabilities, self.draws))
        small.alive, small.step, small.turns = rows(self.alive), self.step, self.turns[which]
        return small


def chosen(scores: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (P, G) by inverse transform sampling, or the likeliest, and their probabilities.

    Args:
        scores: (P, G, V) logits.
        draws: (P, G) uniform on [0, 1 - 2^-22]; None takes the likeliest.
    """
    probability = scores.softmax(dim=-1)
    if draws is None:
        token = probability.argmax(dim=-1)
    else:
        mass = _running_sum(probability)
        token = torch.searchsorted(mass, (draws * mass[..., -1])[..., None], right=True)[..., 0]
        token = token.clamp(max=scores.shape[-1] - 1)  # of scores that are not finite, so that the loss tells of them
    return token, probability.gather(-1, token[..., None])[..., 0]


def _running_sum(probability: Tensor) -> Tensor:
    """Cumulative sums over the last dimension, of whole numbers where determinism is asked for: CUDA adds floats in no
    fixed order."""
    if torch.are_deterministic_algorithms_enabled():
        return (probability.double() * 2.0**52).long().cumsum(dim=-1).double() / 2.0**52
    return probability.cumsum(dim=-1)
