"""What requests cost: estimates before, a reservation while they are under way, and what was spent.

A request is sent only where the most that it can cost still fits beside what is spent and what others under way may cost.
So the budget holds whatever the replies are, as long as no request has more input tokens than it was estimated to have at
most; where a reply shows that it had, all later estimates are raised by that ratio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lightning_sal.clients.replies import Reply
from lightning_sal.clients.requests import Request

TURN_TOKENS = 32  # roles and separators of a turn, at most
TYPICAL_ANSWER = 400  # tokens, of three steps and an answer
TYPICAL_TEXT = 4  # bytes a token, of English
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars a million tokens.

    Args:
        input: Of what is read.
        output: Of what is written.
    """

    input: float
    output: float

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Dollars."""
        return (self.input * input_tokens + self.output * output_tokens) / MILLION


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of a request.

    Args:
        image: Tokens of an image, at most.
        output: Tokens of an answer, at most.
    """

    image: int
    output: int

    @classmethod
    def of(cls, side: int, max_tokens: int, image: int | None = None) -> Estimate:
        """For images of a longest side in pixels.

        An image counts as one token for 480 pixels of a square, and at least 1,200 (models of OpenAI, Google and Alibaba
        take 250 to 1,200 for 768 x 768 pixels), unless `image` states it.
        """
        return cls(max(1200, side * side // 480) if image is None else image, max_tokens)

    def most_input(self, turns: Sequence[str], images: int) -> int:
        """Input tokens at most: a byte of text is one, since no tokenizer of bytes makes more of it."""
        return sum(len(turn.encode()) + TURN_TOKENS for turn in turns) + images * self.image

    def typical_input(self, turns: Sequence[str], images: int) -> int:
        """Input tokens as they are to be expected."""
        return sum(len(turn.encode()) // TYPICAL_TEXT for turn in turns) + images * self.image * 2 // 3


class Stopped(Exception):
    """Nothing more is to be asked; the message says why."""


class Spent(Stopped):
    """The budget allows no further request."""


@dataclass(eq=False, slots=True)
class Charge:
    """A request that is under way.

    Args:
        most: Dollars that it may cost.
        reply: What came back; without it the request counts as dear as it could be.
        free: Whether the server turned it away before any work.
    """

    most: float
    reply: Reply | None = None
    free: bool = False


class Budget:
    """Counts tokens and dollars, and lets no request pass that might exceed a limit.

    Args:
        estimate: Of requests.
        prices: None counts tokens alone.
        limit: Dollars, or None.
    """

    def __init__(self, estimate: Estimate, prices: Prices | None = None, limit: float | None = None) -> None:
        self.estimate, self.prices, self.limit = estimate, prices, limit
        self.spent = 0.0  # dollars
        self.requests = self.input_tokens = self.output_tokens = 0
        self.unknown = 0  # requests of which nobody said what they cost
        self._low = 1.0  # ratio by which estimates of input were too low so far
        self._open: set[Charge] = set()
        self._settled = asyncio.Event()

    @asynccontextmanager
    async def charged(self, request: Request) -> AsyncIterator[Charge]:
        """Surrounds the sending of a request; waits until it fits, at its dearest, beside those under way.

        Raises:
            Spent: It does not fit even after they have ended.
        """
        tokens = self.estimate.most_input(request.texts, len(request.images))
        while not self._fits(most := self._cost(self._low * tokens, self.estimate.output)):
            if not self._open:
                raise Spent(
                    f"the budget of ${self.limit:g} allows no further request: ${self.spent:.4f} is spent, and the next one "
                    f"may cost ${most:.4f}"
                )
            await self._settled.wait()
        charge = Charge(most)
        self._open.add(charge)
        self.requests += 1
        try:
            yield charge
        finally:
            self._settle(charge, tokens)

    def _settle(self, charge: Charge, tokens: int) -> None:
        self._open.remove(charge)
        self._settled.set()
        self._settled = asyncio.Event()
        reply = charge.reply
        if reply is not None and reply.input_tokens is not None and reply.output_tokens is not None:
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens
            self.spent += self._cost(reply.input_tokens, reply.output_tokens)
            self._low = max(self._low, reply.input_tokens / tokens)
        elif not charge.free:
            self.unknown += 1
            self.spent += charge.most

    def _fits(self, most: float) -> bool:
        return self.limit is None or self.spent + sum(charge.most for charge in self._open) + most <= self.limit

    def _cost(self, input_tokens: float, output_tokens: float) -> float:
        return self.prices.cost(input_tokens, output_tokens) if self.prices else 0.0
