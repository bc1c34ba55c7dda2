"""What OpenAI-compatible servers answer, read as each of them means it."""

import json

import pytest

from lightning_sal.annotation.answers import canonical
from lightning_sal.clients.completions import read_reply
from lightning_sal.clients.replies import Failure
from lightning_sal.tasks import TASKS

URL = "http://127.0.0.1:9/chat/completions"
STEPS = "Scene: a field.\nAnalysis: a red barn.\nFinal Conclusion: the barn."
ANSWER = "<answer><rg>the red barn</rg></answer>"
WANTED = f"<think>{STEPS}</think>{ANSWER}"


def of(message, finish="stop", **more):
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more})


def text(words, kind="text"):
    return {"type": kind, "text": words}


@pytest.mark.parametrize(
    "message",
    [
        {"content": WANTED},
        {"content": [text(WANTED)]},
        {"content": [text(WANTED[:40]), text(WANTED[40:])]},
        {"content": [text(WANTED, "output_text")]},
        {"content": [WANTED]},
        {"content": {"type": "text", "text": WANTED}},
        {"content": [{"type": "thinking", "thinking": [text("hm")]}, text(WANTED)]},
        {"content": [{"type": "thinking", "thinking": [text(STEPS)]}, text(ANSWER)]},
        {"content": [{"type": "thinking", "thinking": STEPS, "signature": "x"}, text(ANSWER)]},
        {"content": [{"type": "reasoning", "text": STEPS}, text(ANSWER)]},
        {"content": [{"type": "reasoning", "summary": [text(STEPS, "summary_text")]}, text(ANSWER)]},
        {"content": [{"type": "redacted_thinking", "data": "x"}, text(WANTED), {"type": "image_url", "image_url": {}}]},
        {"content": f"\n\n{ANSWER}", "reasoning_content": STEPS},
        {"content": ANSWER, "reasoning": STEPS},
        {"content": ANSWER, "reasoning": STEPS, "reasoning_details": [{"type": "reasoning.text", "text": STEPS}]},
        {"content": ANSWER, "reasoning_content": None, "reasoning": {"content": STEPS}},
        {"content": ANSWER, "thinking": f"<think>{STEPS}</think>"},
        {"content": WANTED, "reasoning_content": "I shall write <answer>x</answer> behind <think>."},
        {"content": f"{STEPS}\n{ANSWER}", "reasoning_content": "hm"},
        {"content": None, "reasoning_content": f"{STEPS}\n{ANSWER}"},
        {"content": "", "reasoning_content": WANTED},
    ],
)
def test_words_and_reasoning_are_found_wherever_they_stand(message):
    titles = ("Scene", "Analysis", "Final Conclusion")
    assert canonical(read_reply(of(message), URL).text, TASKS["sod"], titles=titles) == WANTED
    if "hm" not in json.dumps(message):
        assert canonical(read_reply(of(message), URL).text, TASKS["sod"]) == WANTED.replace("\n", " ")


@pytest.mark.parametrize(
    ("message", "finish", "refusal"),
    [
        ({"content": None, "refusal": "I will not."}, "stop", "I will not."),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "stop", "I will not."),
        ({"content": None}, "content_filter", "content filter"),
        ({"content": ANSWER, "refusal": None}, "stop", None),
        ({"content": ANSWER, "refusal": ""}, "stop", None),
    ],
)
def test_refusals(message, finish, refusal):
    assert read_reply(of(message, finish), URL).refusal == refusal


@pytest.mark.parametrize(
    "body",
    [of({"content": None}), of({"content": []}), of({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
     of({"content": [{"type": "tool_use", "input": {"text": "x"}}]}), '{"choices": []}', '{"choices": null}',
     '{"choices": [null]}', '{"choices": [{"message": null}]}', of({})],
)  # fmt: skip
def test_an_answer_without_words_is_an_empty_one(body):
    reply = read_reply(body, URL)
    assert (reply.text, reply.refusal, reply.truncated) == ("", None, False)


def test_an_answer_that_reached_the_limit_is_known():
    for finish in ("length", "max_tokens", "MAX_TOKENS"):
        assert read_reply(of({"content": None, "reasoning_content": "hm"}, finish), URL).truncated


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, (9, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2}, (9, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 31}, (9, 22)),  # thoughts are in the total alone
        ({"prompt_tokens": 9}, (None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None)),
        ({"prompt_tokens": "9", "completion_tokens": 2}, (None, None)),
        ({}, (None, None)),
        (None, (None, None)),
        ([], (None, None)),
    ],
)
def test_tokens_are_what_is_counted_or_unknown(usage, tokens):
    reply = read_reply(of({"content": "yes"}, usage=usage), URL)
    assert (reply.input_tokens, reply.output_tokens) == tokens


def events(*chunks, end="data: [DONE]\n\n"):
    return ": a comment\n\n" + "".join(f"event: x\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks) + end


def delta(finish=None, **parts):
    return {"choices": [{"delta": parts, "finish_reason": finish}]}


def test_a_stream_is_read_as_the_answer_in_one_piece():
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    chunks = [delta(role="assistant", content=None), delta(reasoning_content=STEPS[:20], content=None)]
    chunks += [delta(reasoning_content=STEPS[20:]), delta(content=ANSWER[:5]), delta("length", content=ANSWER[5:])]
    reply = read_reply(events(*chunks, {"choices": [], "usage": usage}), URL)
    message = {"content": ANSWER, "reasoning_content": STEPS}
    assert reply == read_reply(of(message, "length", usage=usage), URL)
    listed = [delta(content=[text(WANTED[:9])]), delta("stop", content=[text(WANTED[9:])])]
    assert read_reply(events(*listed, end=""), URL) == read_reply(of({"content": WANTED}), URL)
    assert read_reply(events({"choices": [{"message": {"content": WANTED}}]}), URL).text == WANTED


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("<!doctype html><html><title>My\nServer</title></html>", 404, "a web page and no JSON: 'My Server'"),
        ("<html><body><h1>Wel<b>come</b></h1></body></html>", 404, "'Wel come'"),
        ("Ollama is running", 404, "a text and no JSON: 'Ollama is running'"),
        ('{"error": "Unexpected endpoint. (POST /x)"}', 400, "with an error: Unexpected endpoint. (POST /x)"),
        ('{"error": {"message": "busy", "code": 503}}', 503, "with an error: busy"),
        ('{"error": {"message": "no", "code": "model_not_found"}, "choices": []}', 400, "with an error: no"),
        ('{"choices": [{"error": {"code": 502, "message": "gone"}, "finish_reason": "error"}]}', 502, "error: gone"),
        ('{"detail": "Not Found"}', 400, "without choices: Not Found"),
        ('{"object": "list", "data": []}', 400, 'without choices: {"object": "list", "data": []}'),
        ('["a"]', 400, 'without choices: ["a"]'),
        ('{"choices": [{"mess', None, "cut off"),
        ("", None, "cut off"),
        (events({"error": {"message": "overloaded", "code": 529}}), 529, "error: overloaded"),
        (events(delta(content="y"), end=""), None, "breaks off"),
        ('data: {"choices": [{"del', None, "cut off"),
    ],
)  # fmt: skip
def test_what_is_no_completion_is_told(body, status, said):
    with pytest.raises(Failure) as caught:
        read_reply(body, URL)
    assert said in str(caught.value)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
