"""What the two libraries make of real answers over HTTP."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from lightning_sal.annotation.clients import Failure, make_client, wait_asked_for
from lightning_sal.annotation.requests import Request, picture
from lightning_sal.errors import UsageError
from tests.annotation.parts import photograph
from tests.annotation.server import INPUT, OUTPUT, Model, Server

KEY = "sk-very-secret-0123456789"
MODELS = ["some-model", "gemini:some-model"]


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)


def ask(model: str, deed: str, turns: tuple[str, ...] = ("what?",), images: int = 2):
    """A reply or the failure, and the request as the server saw it."""
    import torch

    request = Request(tuple(picture(torch.from_numpy(photograph(3 + i)), 100) for i in range(images)), turns)

    async def once(url: str):
        client = make_client(model, url, 77)
        try:
            return await client.ask(request)
        except Failure as failure:
            return failure
        finally:
            await client.close()

    with Server(Model({3: [deed]})) as server:
        result = asyncio.run(once(server.url))
    (asked,) = server.log  # a client that tried again on its own would be here twice
    assert (asked.images, asked.texts, asked.most_tokens) == (request.images, turns, 77)
    return result


@pytest.mark.parametrize("model", MODELS)
def test_a_reply_has_its_text_and_tokens(model):
    reply = ask(model, "ok", ("what?", "that", "why?"))
    assert reply.text.startswith("<think>")
    assert (reply.input_tokens, reply.output_tokens, reply.refusal) == (INPUT, OUTPUT, None)
    assert not reply.truncated


@pytest.mark.parametrize(("model", "reason"), [(MODELS[0], "I will not."), (MODELS[1], "SAFETY")])
def test_a_refusal_is_no_failure(model, reason):
    reply = ask(model, "refusal")
    assert (reply.text, reply.refusal) == ("", reason)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("deed", "status", "passing", "free", "fatal"),
    [
        ("429", 429, True, True, False),
        ("500", 500, True, False, False),
        ("bad request", 400, False, True, False),
        ("no key", 401, False, True, True),
        ("reset", None, True, False, False),
        ("cut body", None, True, False, False),
        ("cut JSON", None, True, False, False),
    ],
)
def test_failures_say_what_they_are(model, deed, status, passing, free, fatal):
    failure = ask(model, deed)
    assert isinstance(failure, Failure)
    assert (failure.status, failure.passing, failure.free, failure.fatal) == (status, passing, free, fatal)
    assert "\n" not in str(failure)


@pytest.mark.parametrize("model", MODELS)
def test_the_wait_that_a_server_asks_for_is_known(model):
    assert ask(model, "429 after").retry_after == 0.05
    assert ask(model, "429").retry_after is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("deed", ["echo", "no key", "echo in the answer"])
def test_a_key_that_a_server_sends_back_is_not_shown(model, deed):
    result = ask(model, deed)
    shown = result.text if deed == "echo in the answer" else str(result)
    assert "<key>" in shown
    assert KEY not in shown
    assert getattr(result, "__cause__", None) is None


def test_waits_as_seconds_as_a_date_and_in_a_body():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert wait_asked_for({"retry-after": "2.5"}, "") == 2.5
    assert wait_asked_for({"retry-after": later}, "") == pytest.approx(85, abs=5)
    assert wait_asked_for({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "") == 0
    assert wait_asked_for({}, "{'@type': '.../RetryInfo', 'retryDelay': '13s'}") == 13
    assert wait_asked_for({}, "slow down") is None
    assert wait_asked_for({"retry-after": "soon"}, "slow down") is None


@pytest.mark.parametrize(
    ("model", "url", "names"),
    [
        ("m", None, "OPENAI_API_KEY"),
        ("gemini:m", None, "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ("gemini:m", "http://127.0.0.1:9", "GEMINI_API_KEY or GOOGLE_API_KEY"),
    ],
)
def test_a_missing_key_is_named(monkeypatch, model, url, names):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, " ")
    with pytest.raises(UsageError, match=f"environment variable {names}$"):
        make_client(model, url, 10)


def test_a_server_of_ones_own_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask("qwen2.5vl:7b", "ok").text
