"""A model behind an endpoint as it is asked about image groups: each answer is kept before it is used, and paid for once.

An answer is kept by all that decides it: the model, its address, temperature and limit of tokens in the name of a folder,
the conversation and the images as they are sent in the name of a file there. So a run that was killed, and started again
by the same command, asks for no answer that it has had.

A request that the server will never answer is an answer without text, which says why. What may pass, once all retries have
failed, what every request would fail by, and a budget that is spent end the run by one line.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sal.clients.background import Background
from lightning_sal.clients.budget import Budget, Estimate, Spent, Stopped
from lightning_sal.clients.cache import ReplyCache, content_key
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.clients.pictures import as_jpeg, shrunk
from lightning_sal.clients.replies import Failure, Reply
from lightning_sal.clients.requests import Request
from lightning_sal.errors import UsageError
from lightning_sal.internals.reaching import fault_of
from lightning_sal.samples import ImageGroup, Message, Usage
from lightning_sal.tasks import get_task

if TYPE_CHECKING:
    from lightning_sal.clients.asking import Asker

NEVER_ANSWERED = frozenset({400, 413, 422})  # statuses of a request that fares no better a second time, and others may


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model behind an endpoint answered about an image group.

    Args:
        text: The whole response; empty where it refused.
        truncated: Whether it reached the limit of tokens.
        confidence: Mean probability of its tokens, in [0, 1]; None where the endpoint has none.
        usage: What it took.
        refusal: Why there is no answer, or None.
    """

    text: str
    truncated: bool
    confidence: float | None
    usage: Usage
    refusal: str | None = None


@dataclass(slots=True)
class Ledger:
    """What was asked and what it took. Answers that were kept before count as when they were asked for.

    Args:
        answers: Distinct ones that were used.
        kept: Of these, those that an earlier run has had.
        refused: Of these, those without text.
        turned_away: Of these, those whose request the server turned away before any work.
        input_tokens: That were read.
        output_tokens: That were written.
        cost: Dollars; 0 where prices are not known.
        requests: That this process has sent, retries included.
        unknown: Of these, those of which nobody said what they cost; a budget counts them at their dearest.
    """

    answers: int = 0
    kept: int = 0
    refused: int = 0
    turned_away: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    requests: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class _Told:
    """A reply and the seconds from asking for it to having it."""

    reply: Reply
    seconds: float


class AskedModel:
    """Asks a model behind an endpoint about image groups.

    Args:
        config: The model, and how it is asked.
        max_new_tokens: Limit of response tokens, thoughts included, > 0.
    """

    def __init__(self, config: EndpointConfig, max_new_tokens: int) -> None:
        self.config, self.max_new_tokens = config, max_new_tokens
        settings = (config.model, config.address, config.temperature, max_new_tokens)
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", config.name).strip(".-") or "model"
        self.folder = config.cache and Path(config.cache, f"{plain}-{content_key(*settings)[:12]}")
        self._replies = ReplyCache(self.folder or None)
        estimate = Estimate.of(config.longest_side, max_new_tokens)
        self._budget = Budget(estimate, config.prices, config.budget)
        self._entered: set[str] = set()  # keys of the answers in the ledger
        self._ledger = Ledger()
        self._turned_away = 0  # requests in a row
        self._never: dict[str, _Told] = {}  # what was told of requests that were turned away: a later run asks again
        self._opened: tuple[Asker, Background] | None = None

    @property
    def ledger(self) -> Ledger:
        """What was asked so far, and what it took."""
        return replace(self._ledger, requests=self._budget.requests, unknown=self._budget.unknown)

    @property
    def estimate(self) -> Estimate:
        """Tokens of a request."""
        return self._budget.estimate

    @property
    def kept(self) -> int:
        """How many answers of this model are kept, under these settings."""
        return len(self._replies)

    def keeps(self, request: Request) -> bool:
        """Whether the answer to a request is kept, so that it costs nothing any more."""
        return _read(self._replies.get(_key(request))) is not None

    def ask(self, groups: Sequence[ImageGroup], messages: Sequence[Sequence[Message]]) -> list[Answered]:
        """The answers to B groups, in their order.

        Args:
            groups: B image groups.
            messages: The conversation of each: turns of the user and the model, after a system turn where there is one. The
                first turn of the user shows all images.

        Raises:
            UsageError: The model cannot be asked any further; the line says why, and how to go on.
            ValueError: A conversation has another shape.
        """
        side = self.config.longest_side
        requests = [request_of(group, turns, side) for group, turns in zip(groups, messages, strict=True)]
        keys = [_key(request) for request in requests]
        asked = dict(zip(keys, requests, strict=True))
        told = {key: known for key in asked if (known := self._known(key)) is not None}
        if waiting := {key: request for key, request in asked.items() if key not in told}:
            asker, background = self._open()
            try:
                told |= background.run(self._ask_all(asker, waiting))
            except (Failure, Stopped) as stop:
                raise UsageError(self._stopped(stop)) from None
        return [self._answered(told[key]) for key in keys]

    def check(self) -> None:
        """Check, before any work, that there are libraries, a key, and a server at the address that is given.

        Raises:
            UsageError: Something is missing; the line says what.
        """
        self._open()
        address = self.config.base_url
        fault = None if address is None else fault_of(address)
        if fault is not None and not isinstance(fault, TimeoutError):  # a server that first wakes up takes its time
            raise UsageError(f"{self.config.name}: nothing answers at {address}: {fault}; check the address")

    def require_answers(self, ledger: Ledger) -> None:
        """Check at the end that some request was answered: where none was, the fault is hardly that of the samples.

        Args:
            ledger: Of this model, or of all processes that asked it.

        Raises:
            UsageError: All were turned away.
        """
        if 0 < ledger.answers == ledger.turned_away:
            last = "".join(f", the last: {told.reply.refusal}" for told in list(self._never.values())[-1:])
            raise UsageError(
                f"{self.config.name} answered nothing: each of {ledger.answers} requests was turned away{last}"
            )

    def close(self) -> None:
        """Ends the connections, if there are any."""
        if self._opened is not None:
            asker, background = self._opened
            background.run(asker.client.close())
            background.close()
            self._opened = None

    async def _ask_all(self, asker: Asker, requests: Mapping[str, Request]) -> dict[str, _Told]:
        """Key -> what was told. What is under way when one must stop is brought to its end, and kept."""
        gate, stops = asyncio.Semaphore(self.config.concurrency), list[Exception]()

        async def ask(key: str, request: Request) -> _Told | None:
            async with gate:
                try:
                    return None if stops else await self._ask_one(asker, key, request)
                except (Failure, Stopped, OSError) as error:
                    stops.append(error)
                    return None

        told = await asyncio.gather(*(ask(key, request) for key, request in requests.items()))
        if stops:
            raise stops[0]
        return {key: each for key, each in zip(requests, told, strict=True) if each is not None}

    async def _ask_one(self, asker: Asker, key: str, request: Request) -> _Told:
        start = time.monotonic()
        try:
            reply = await asker.ask(request)
        except Failure as failure:
            if failure.status not in NEVER_ANSWERED:
                raise
            self._turned_away += 1
            if self._turned_away >= self.config.give_up_after:
                raise Stopped(f"{self._turned_away} requests in a row were turned away, the last: {failure}") from None
            told = _Told(Reply("", 0, 0, refusal=str(failure)), time.monotonic() - start)  # before any work
            self._never[key] = told
            self._ledger.turned_away += 1
        else:
            self._turned_away = 0
            told = _Told(reply, time.monotonic() - start)
            self._replies.keep(key, asdict(told))
        self._enter(key, told)
        return told

    def _known(self, key: str) -> _Told | None:
        """What is kept under a key."""
        if key in self._never:
            return self._never[key]
        told = _read(self._replies.get(key))
        if told is not None and key not in self._entered:
            self._ledger.kept += 1
            self._enter(key, told)
            self._budget.spent += self._cost(told.reply) or 0.0
        return told

    def _enter(self, key: str, told: _Told) -> None:
        self._entered.add(key)
        ledger, reply = self._ledger, told.reply
        ledger.answers += 1
        ledger.refused += reply.refusal is not None
        ledger.input_tokens += reply.input_tokens or 0
        ledger.output_tokens += reply.output_tokens or 0
        ledger.cost += self._cost(reply) or 0.0

    def _answered(self, told: _Told) -> Answered:
        reply = told.reply
        usage = Usage(told.seconds, reply.input_tokens, reply.output_tokens, self._cost(reply))
        text = "" if reply.refusal else reply.text
        return Answered(text, reply.truncated, reply.confidence, usage, reply.refusal)

    def _cost(self, reply: Reply) -> float | None:
        prices = self.config.prices
        if prices is None or reply.input_tokens is None or reply.output_tokens is None:
            return None
        return prices.cost(reply.input_tokens, reply.output_tokens)

    def _open(self) -> tuple[Asker, Background]:
        """The client, which is made when it is first needed."""
        if self._opened is None:
            from lightning_sal.clients.api import make_client, require_access

            config = self.config
            require_access(config.model, config.base_url)
            from lightning_sal.clients.asking import Asker

            client = make_client(
                config.model,
                config.base_url,
                self.max_new_tokens,
                config.concurrency,
                config.temperature,
                logprobs=True,
            )
            asker = Asker(client, self._budget, config.per_minute, config.timeout, config.retries, config.backoff)
            self._opened = asker, Background()
        return self._opened

    def _stopped(self, why: Exception) -> str:
        """The line that ends a run."""
        ledger = self.ledger
        spent = f", ${self._budget.spent:.4f} spent" if self.config.prices else ""
        command = "the same command with a higher budget" if isinstance(why, Spent) else "the same command"
        where = f"kept in {self.folder}: {command} goes on from there" if self.folder else "lost: set a cache"
        return f"{self.config.name} stopped: {why}; {ledger.answers - ledger.refused} answers{spent}, {where}"


def opening(config: EndpointConfig, kept: int) -> str:
    """The line before the first request: who is asked where, what is kept already, and what tokens cost."""
    price = "no price is known: input_price and output_price, in dollars a million tokens, count the cost"
    if config.prices:
        price = f"${config.prices.input:g} and ${config.prices.output:g} a million tokens in and out"
    return f"{config.name} at {config.address}: {kept} answers are kept already; {price}"


def closing(config: EndpointConfig, ledger: Ledger) -> str:
    """The line after the last answer: what was asked, and what it took."""
    unknown = f", {ledger.unknown} of unknown cost" if ledger.unknown else ""
    cost = f", ${ledger.cost:.4f}" if config.prices else ""
    return (
        f"{config.name}: {ledger.answers} answers, {ledger.kept} of them kept from before; {ledger.requests} requests"
        f"{unknown}; {ledger.input_tokens:,} tokens in, {ledger.output_tokens:,} out{cost}; {ledger.refused} refused"
    )


def request_of(group: ImageGroup, messages: Sequence[Message], side: int) -> Request:
    """A conversation about an image group as it is sent.

    Args:
        group: Its images are shown as its task views them.
        messages: Turns of the user and the model, after a system turn where there is one; the user's first shows all images.
        side: Longest side of an image in pixels.

    Raises:
        ValueError: The conversation has another shape.
    """
    system = messages[0].text if messages and messages[0].role == "system" else ""
    turns = messages[1:] if system else messages
    view = get_task(group.task).view
    images = tuple(as_jpeg(shrunk(view(image), side)) for image in group.images)
    request = Request(images, tuple(turn.text for turn in turns), system)
    if not turns or len(turns) % 2 == 0 or request.messages != tuple(messages):
        raise ValueError(
            f"{group.key}: an endpoint is asked by turns of the user and the model, from user to user, after a system turn "
            "where there is one, and is shown all images at first"
        )
    return request


def _key(request: Request) -> str:
    """Under which the answer to a request is kept, in the folder of the model and its settings."""
    return content_key(request.system, request.turns, *map(_digest, request.images))


def _digest(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def _read(kept: Any) -> _Told | None:
    """What was kept; None where it is nothing of the kind, which is asked for again."""
    try:
        return _Told(Reply(**kept["reply"]), float(kept["seconds"]))
    except (TypeError, KeyError, ValueError):
        return None
