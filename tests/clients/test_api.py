"""What the two libraries make of real answers over HTTP."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import torch

from lightning_sal.annotation.requests import picture
from lightning_sal.clients.api import make_client, wait_asked_for
from lightning_sal.clients.replies import Failure
from lightning_sal.clients.requests import Request
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


def json_of(answer) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(answer).encode()


def completion(text: str = "yes") -> tuple[int, str, bytes]:
    return json_of({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})


def refusing(*names: str, status: int = 400, instead: str = ""):
    """A server that takes none of these fields, or lacks another one."""

    def answer(body):
        named = [name for name in names if name in body] or [instead] * (bool(instead) and instead not in body)
        if not named:
            return completion()
        return status, "application/json", json.dumps({"error": {"message": f"{named[0]}: not like this"}}).encode()

    return answer


def ask_often(raw, times: int, together: bool = False, model: str = MODELS[0]):
    """Replies or failures of as many requests, and the bodies that the server got."""
    bodies: list[dict] = []

    def noting(body):
        bodies.append({name: value for name, value in body.items() if name not in ("messages", "model")})
        return raw(body)

    async def all_of_them(url: str):
        client = make_client(model, url, 77)
        request = Request((picture(torch.from_numpy(photograph(3)), 100),), ("what?",))
        asked = [client.ask(request) for _ in range(times)]
        try:
            if together:
                return await asyncio.gather(*asked, return_exceptions=True)
            return [(await asyncio.gather(each, return_exceptions=True))[0] for each in asked]
        finally:
            await client.close()

    with Server(Model(raw=noting)) as server:
        return asyncio.run(all_of_them(server.url)), bodies


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_field_that_a_server_does_not_take_is_sent_once(together, status):
    replies, bodies = ask_often(refusing("max_completion_tokens", status=status), 4, together)
    assert [reply.text for reply in replies] == ["yes"] * 4
    assert bodies == [{"max_completion_tokens": 77}] + [{"max_tokens": 77}] * 4


def test_a_field_that_a_server_lacks_is_sent_from_then_on():
    replies, bodies = ask_often(refusing(instead="max_tokens"), 2)
    assert [reply.text for reply in replies] == ["yes"] * 2
    assert bodies == [{"max_completion_tokens": 77}] + [{"max_tokens": 77}] * 2


def test_no_request_is_without_a_limit_of_tokens():
    (failure,), bodies = ask_often(refusing("max_completion_tokens", "max_tokens"), 1)
    assert bodies == [{"max_completion_tokens": 77}, {"max_tokens": 77}]
    assert (failure.status, failure.passing) == (400, False)
    assert "max_tokens: not like this" in str(failure)


def streamed(*chunks) -> tuple[int, str, bytes]:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return 200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode()


@pytest.mark.parametrize("said", ["This model only support stream mode", "Stream must be set to true"])
def test_a_server_that_only_streams_is_asked_to(said):
    def raw(body):
        if not body.get("stream"):
            return 400, "application/json", json.dumps({"error": {"message": said}}).encode()
        usage = {"prompt_tokens": 9, "completion_tokens": 2}
        delta = [{"choices": [{"delta": {"content": part}}]} for part in ("y", "es")]
        end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        return streamed(*delta, end, {"choices": [], "usage": usage})

    replies, bodies = ask_often(raw, 2)
    assert [(reply.text, reply.input_tokens, reply.output_tokens) for reply in replies] == [("yes", 9, 2)] * 2
    assert [body.get("stream") for body in bodies] == [None, True, True]
    assert bodies[1]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("model", MODELS)
def test_a_web_page_is_no_answer_and_none_will_come(model):
    page = b"<!DOCTYPE html><html><head><title>My Server</title></head><body><p>x</p></body></html>"
    (failure,), bodies = ask_often(lambda _: (200, "text/html", page), 1, model=model)
    assert len(bodies) == 1
    assert (failure.fatal, failure.passing, failure.free) == (True, False, True)
    assert "My Server" in str(failure)
    assert "\n" not in str(failure)


@pytest.mark.parametrize(
    ("answer", "passing", "said"),
    [
        ((500, "text/plain", b"CUDA out\nof memory"), True, "InternalServerError: 500 CUDA out of memory"),
        ((413, "text/html", b"<html><h1>413 Too Large</h1></html>"), False, "413 Too Large"),
        (
            (404, "application/json", b'{"detail":"Not Found"}'),
            False,
            "Not Found; the address of most servers ends in /v1",
        ),
        (json_of({"error": {"message": "busy", "code": 429}}), True, "answered 200 with an error: busy"),
        (
            json_of({"error": "Unexpected endpoint"}),
            False,
            "answered 200 with an error: Unexpected endpoint; the address",
        ),
    ],
)
def test_what_a_server_says_in_place_of_an_answer_is_told(answer, passing, said):
    (failure,), _ = ask_often(lambda _: answer, 1)
    assert said in str(failure)
    assert failure.passing == passing
    assert "<" not in str(failure)


def test_a_key_in_such_an_answer_is_not_shown():
    for answer in (json_of({"error": f"no such key: {KEY}"}), (500, "text/plain", KEY.encode()), completion(KEY)):
        (result,), _ = ask_often(lambda _, answer=answer: answer, 1)
        shown = str(result) if isinstance(result, Failure) else result.text
        assert "<key>" in shown
        assert KEY not in shown


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
