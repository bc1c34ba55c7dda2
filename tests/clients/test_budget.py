"""Costs by hand arithmetic: at $1 a million input and $2 a million output tokens."""

import asyncio

import pytest

from lightning_sal.clients.api import Reply
from lightning_sal.clients.budget import Budget, Estimate, Prices, Stopped
from lightning_sal.clients.requests import Request

REQUEST = Request((b"jpeg", b"jpeg"), ("x" * 968,))  # 968 bytes + 32 of a turn + 2 images of 500 tokens: 2000 at most
MOST = (2000 + 2 * 100) / 1e6


def budget(limit: float | None = None) -> Budget:
    return Budget(Estimate(image=500, output=100), Prices(1, 2), limit)


async def send(budget: Budget, reply: Reply | None = None, *, free: bool = False, until: asyncio.Event | None = None):
    async with budget.charged(REQUEST) as charge:
        if until is not None:
            await until.wait()
        charge.reply, charge.free = reply, free


def test_what_a_reply_states_is_what_it_cost():
    counted = budget()
    asyncio.run(send(counted, Reply("", 1000, 50)))
    assert counted.spent == pytest.approx((1000 + 2 * 50) / 1e6)
    assert (counted.input_tokens, counted.output_tokens, counted.requests, counted.unknown) == (1000, 50, 1, 0)


@pytest.mark.parametrize("reply", [None, Reply("", None, None), Reply("", 10, None)])
def test_an_unknown_cost_counts_as_the_highest_possible(reply):
    counted = budget()
    asyncio.run(send(counted, reply))
    assert counted.spent == pytest.approx(MOST)
    assert counted.unknown == 1


def test_a_request_that_is_turned_away_costs_nothing():
    counted = budget()
    asyncio.run(send(counted, free=True))
    assert (counted.spent, counted.requests) == (0, 1)


def test_a_request_that_breaks_off_counts_as_the_highest_possible():
    async def broken(counted: Budget) -> None:
        async with counted.charged(REQUEST):
            raise RuntimeError

    counted = budget()
    with pytest.raises(RuntimeError):
        asyncio.run(broken(counted))
    assert counted.spent == pytest.approx(MOST)


def test_no_request_passes_that_might_exceed_the_budget():
    counted = budget(limit=2.5 * MOST)
    asyncio.run(send(counted))
    asyncio.run(send(counted))
    with pytest.raises(Stopped, match=r"budget of \$0.0055 allows no further request: \$0.0044 is spent"):
        asyncio.run(send(counted))
    assert counted.spent == pytest.approx(2 * MOST)


def test_requests_under_way_count_too_and_what_they_leave_is_used():
    async def scenario() -> list[bool]:
        counted, until = budget(limit=1.5 * MOST), asyncio.Event()
        first = asyncio.create_task(send(counted, Reply("", 100, 0), until=until))
        await asyncio.sleep(0)
        second = asyncio.create_task(send(counted, Reply("", 100, 0)))
        for _ in range(5):
            await asyncio.sleep(0)
        waited = not second.done() and counted.requests == 1
        until.set()
        await asyncio.gather(first, second)
        return [waited, counted.requests == 2]

    assert all(asyncio.run(scenario()))


def test_estimates_rise_where_a_reply_shows_that_they_were_too_low():
    counted = budget(limit=10 * MOST)
    asyncio.run(send(counted, Reply("", 8000, 0)))  # four times what a request was to take at most
    asyncio.run(send(counted, Reply("", 8000, 0)))
    with pytest.raises(Stopped, match=rf"may cost \${(8000 + 200) / 1e6:.4f}"):  # though $0.006 is left
        asyncio.run(send(counted, Reply("", 8000, 0)))


def test_without_prices_tokens_alone_are_counted():
    counted = Budget(Estimate(image=500, output=100))
    asyncio.run(send(counted, Reply("", 1000, 50)))
    assert (counted.spent, counted.input_tokens) == (0, 1000)


@pytest.mark.parametrize(
    ("side", "stated", "tokens"), [(768, None, 1228), (100, None, 1200), (1536, None, 4915), (768, 90, 90)]
)
def test_tokens_of_an_image(side, stated, tokens):
    assert Estimate.of(side, 100, stated).image == tokens
