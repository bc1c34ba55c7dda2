"""Asking a model at a rate, within a budget, and again where it may help.

A request is sent again up to `retries` times where it failed on the way, after a random wait (full jitter) below
backoff x 2^n seconds, and never before the time that the server asks for.
"""

from __future__ import annotations

import asyncio

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from lightning_sal.clients.api import Client
from lightning_sal.clients.budget import Budget
from lightning_sal.clients.replies import Failure, Reply
from lightning_sal.clients.requests import Request

LONGEST_WAIT = 60.0  # seconds, of our own accord
LONGEST_ASKED = 600.0  # seconds that a server may ask to wait


class Asker:
    """Asks a model, as often as it takes and is allowed.

    Args:
        client: The model.
        budget: What it may cost.
        per_minute: Requests sent in a minute, or None for no limit.
        timeout: Seconds until a request counts as failed, or None.
        retries: Times that a request is sent again after a failure that may pass, >= 0.
        backoff: Seconds that the first wait is at most.
    """

    def __init__(
        self,
        client: Client,
        budget: Budget,
        per_minute: float | None = None,
        timeout: float | None = 120.0,
        retries: int = 5,
        backoff: float = 1.0,
    ) -> None:
        self.client, self.budget = client, budget
        self.per_minute, self.timeout, self.retries = per_minute, timeout, retries
        self._jitter = wait_random_exponential(multiplier=backoff, max=LONGEST_WAIT)
        self._next_request = 0.0

    async def ask(self, request: Request) -> Reply:
        """An answer.

        Raises:
            Failure: There was none.
            Stopped: Nothing more is to be asked.
        """
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=self._wait,
            retry=retry_if_exception(_worth_repeating),
            reraise=True,
        )
        return await attempts(self._send, request)

    async def _send(self, request: Request) -> Reply:
        await self._turn()
        async with self.budget.charged(request) as charge:
            try:
                async with asyncio.timeout(self.timeout):
                    charge.reply = await self.client.ask(request)
            except TimeoutError:
                raise Failure(f"no answer in {self.timeout:g} s") from None
            except Failure as failure:
                charge.free = failure.free
                raise
        return charge.reply

    async def _turn(self) -> None:
        """Waits until the next request may be sent: they are evenly spread over each minute."""
        if self.per_minute is None:
            return
        loop = asyncio.get_running_loop()
        start = max(loop.time(), self._next_request)
        self._next_request = start + 60 / self.per_minute
        await asyncio.sleep(start - loop.time())

    def _wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after if isinstance(failure, Failure) and failure.retry_after else 0.0
        return asked + self._jitter(state)


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, Failure) and error.passing and (error.retry_after or 0.0) <= LONGEST_ASKED
