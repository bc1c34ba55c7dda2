"""How often, how many at once and after which waits a model is asked; nothing sleeps."""

import asyncio
import random

import pytest

from lightning_sal.annotation.output import Output
from lightning_sal.annotation.runner import Limits, Runner
from lightning_sal.annotation.samples import list_samples
from lightning_sal.annotation.wording import Wording
from lightning_sal.clients.budget import Budget, Estimate
from lightning_sal.clients.replies import Failure, Reply
from tests.annotation.parts import write_sod
from tests.annotation.server import usual_answer

SLEEP = asyncio.sleep


class Scripted:
    """Fails as it is told, then answers."""

    def __init__(self, failures: list[Failure], together: int = 1) -> None:
        self.failures, self.requests, self.now, self.most = failures, 0, 0, 0
        self.together = asyncio.Barrier(together)  # so many requests must be under way before any is answered

    async def ask(self, request):
        self.requests += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await self.together.wait()
        self.now -= 1
        if self.failures:
            raise self.failures.pop(0)
        return Reply(usual_answer(request.turns[0], 0), 1, 1)

    async def close(self):
        self.closed = True


@pytest.fixture
def slept(monkeypatch):
    """The waits that were asked for."""
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await SLEEP(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


def run(tmp_path, client: Scripted, count: int = 1, **limits) -> Runner:
    samples = list_samples("sod", write_sod(tmp_path / "data", count), tmp_path, split=None, group_size=8)
    output = Output(tmp_path / "sft.jsonl")
    runner = Runner(client, Wording.read("sod"), output, Budget(Estimate.of(768, 100)), Limits(**limits))
    asyncio.run(runner.run(samples))
    output.close()
    assert client.closed
    return runner


def test_waits_are_random_below_a_bound_that_doubles(tmp_path, slept):
    random.seed(0)
    for attempt in range(20):
        run(tmp_path / str(attempt), Scripted([Failure("busy", 503) for _ in range(4)]), retries=4, backoff=1.0)
    turns = [slept[n::4] for n in range(4)]
    assert len(slept) == 80
    for n, waits in enumerate(turns):
        assert 0 <= min(waits) < 0.4 * 2**n
        assert 0.6 * 2**n < max(waits) <= 2**n


def test_no_request_comes_before_the_server_wants_one(tmp_path, slept):
    client = Scripted([Failure("busy", 429, retry_after=30.0), Failure("busy", 429)])
    assert run(tmp_path, client, retries=2, backoff=0.5).tally.accepted == 1
    assert 30 <= slept[0] <= 30.5
    assert 0 <= slept[1] <= 1


@pytest.mark.parametrize(
    ("failure", "requests"),
    [
        (Failure("busy", 429), 3),
        (Failure("reset"), 3),
        (Failure("not like this", 400), 1),
        (Failure("come back tomorrow", 429, retry_after=86_400.0), 1),
    ],
)
def test_only_what_may_pass_is_tried_again(tmp_path, slept, failure, requests):
    client = Scripted([failure] * requests)
    assert run(tmp_path, client, count=2, retries=2, concurrency=1).tally.rejected == {"no answer": 1}
    assert client.requests == requests + 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_samples_are_under_way_at_once(tmp_path, concurrency):
    client = Scripted([], together=concurrency)
    assert run(tmp_path, client, count=9, concurrency=concurrency).tally.accepted == 9
    assert client.most == concurrency


def test_requests_are_spread_over_the_minute(tmp_path, slept):
    client = Scripted([Failure("busy", 503)])
    run(tmp_path, client, count=4, per_minute=6, concurrency=4, backoff=0.0)
    turns = sorted(slept)[1:]  # without the wait of the failure; those for a turn end 10 s apart
    assert turns == pytest.approx([0, 10, 20, 30, 40], abs=1)


class Saying:
    """Gives these replies by turns, the last one for good."""

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.requests = list(replies), 0

    async def ask(self, request):
        self.requests += 1
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def close(self):
        self.closed = True


GOOD = Reply(usual_answer("<rg>", 0), 1, 1)


@pytest.mark.parametrize(
    ("reply", "requests", "reason"),
    [
        (Reply("", 1, 0), 1, "empty: the model wrote nothing"),
        (Reply(" \n", 1, 0), 1, "empty: the model wrote nothing"),
        (Reply("", 1, 9, truncated=True), 1, "cut off at the limit of tokens: raise --max-tokens"),
        (Reply("I think", 1, 9, truncated=True), 1, "cut off at the limit of tokens: raise --max-tokens"),
        (Reply("no tags", 1, 1), 2, "malformed: there is no <answer> block"),  # a third time it says the same
    ],
)
def test_what_the_next_answer_would_not_mend_is_not_paid_again(tmp_path, reply, requests, reason):
    client = Saying(reply)
    runner = run(tmp_path, client, answers=3)
    assert client.requests == requests
    assert runner.tally.rejected == {reason.partition(":")[0]: 1}
    assert reason in runner.tally.stopped


def test_other_answers_are_asked_for_as_often_as_allowed(tmp_path):
    client = Saying(*(Reply(f"no tags {number}", 1, 1) for number in range(9)))
    run(tmp_path, client, answers=3)
    assert client.requests == 3


def test_a_run_none_of_whose_answers_can_be_used_stops(tmp_path):
    client = Saying(Reply("", 1, 0))
    tally = run(tmp_path, client, count=9, failures=4, concurrency=1).tally
    assert client.requests == 4
    assert tally.rejected == {"empty": 4}  # paid for: they are not asked for again
    assert tally.stopped.startswith("no answer to 4 samples can be used (")
    assert tally.stopped.endswith("), the last: empty: the model wrote nothing")


@pytest.mark.parametrize("first", [GOOD, Reply("", 1, 1, refusal="I will not.")])
def test_a_run_of_which_something_else_is_known_goes_on(tmp_path, first):
    client = Saying(first, Reply("", 1, 0))
    tally = run(tmp_path, client, count=9, failures=4, concurrency=1).tally
    assert client.requests == 9
    assert tally.stopped is None


def test_a_run_without_any_answer_is_no_success_however_short(tmp_path):
    tally = run(tmp_path, Scripted([Failure("not like this", 400) for _ in range(3)]), count=3, concurrency=1).tally
    assert tally.stopped == "3 samples in a row without an answer, the last: not like this"
    assert not tally.rejected  # so they are asked for again
    tally = run(tmp_path, Scripted([Failure("not like this", 400)]), count=3, concurrency=1).tally
    assert (tally.accepted, tally.rejected, tally.stopped) == (2, {"no answer": 1}, None)
