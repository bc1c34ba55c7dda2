"""What OpenAI-compatible servers answer to a chat completion, read as each of them means it.

The words may be a text or a list of parts, the reasoning may stand before the words, in a part of its own, or beside them;
some servers stream whatever they are asked for; and with status 200 may come an error or a web page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_sal.clients.replies import Failure, Reply, mean_probability
from lightning_sal.tasks.blocks import think_block

BESIDE = ("reasoning_content", "reasoning", "reasoning_text", "thinking")  # fields of a message that hold its reasoning
WORDS = ("text", "thinking", "reasoning", "content", "summary", "refusal")  # fields of a part that hold its words
CUT = ("length", "max_tokens", "MAX_TOKENS")
LONGEST = 200  # characters of what is quoted


def read_reply(body: str, url: str) -> Reply:
    """The reply in the body of an answer of status 200.

    Args:
        body: The answer, as JSON or as server-sent events.
        url: Where it comes from, for messages.

    Raises:
        Failure: It is no chat completion; the message says what it is.
    """
    answer = _joined(body) if re.match(r"\s*(?:data|event|id|retry)?:", body) else _parsed(body, url)
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if error := answer.get("error") or first.get("error"):
        raise Failure(f"{url} answered 200 with an error: {said_in(answer | {'error': error})}", _code(error))
    if "choices" not in answer:
        raise Failure(f"{url} answered 200 without choices: {said_in(answer)}", 400)
    message, finish = first.get("message"), first.get("finish_reason")
    thoughts, words, refusal = _read_message(message if isinstance(message, dict) else {})
    if finish == "content_filter":
        refusal = refusal or "content filter"
    usage = answer.get("usage")
    read, written = _tokens(usage if isinstance(usage, dict) else {})
    if thoughts.strip() and words.strip():
        words = f"{think_block(thoughts)}\n{words}"
    return Reply(
        text=words if words.strip() else thoughts,
        input_tokens=read,
        output_tokens=written,
        refusal=refusal or None,
        truncated=finish in CUT,
        confidence=mean_probability(token.get("logprob") for token in _token_logps(first.get("logprobs"))),
    )


def said_in(body: Any) -> str:
    """What a server says in an answer that is none: the words of an error, of a web page or of a plain text, shortened."""
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            page = re.search(r"<title[^>]*>(.*?)</title>|<h1[^>]*>(.*?)</h1>", body, re.DOTALL | re.IGNORECASE)
            body = next(filter(None, page.groups()), "") if page else body
            return " ".join(re.sub(r"<[^>]*>", " ", body).split())[:LONGEST] or "nothing"
    told = body
    while isinstance(told, dict):
        told = next((told[name] for name in ("error", "message", "detail", "msg") if told.get(name)), json.dumps(body))
    return " ".join((told if isinstance(told, str) else json.dumps(told)).split())[:LONGEST]


def no_json(body: str, where: str) -> Failure:
    """What came where JSON was to be read: an answer that is cut off, or what is none and never will be one there."""
    text = body.strip()
    if not text or text[0] in "{[":
        return Failure(f"{where}: the answer is cut off: {text[-60:]!r}")
    kind = "a web page" if text[0] == "<" else "a text"
    return Failure(f"{where} answered with {kind} and no JSON: {said_in(text)!r}", 404)


def _parsed(body: str, url: str) -> dict[str, Any]:
    text = body.lstrip("\ufeff")
    try:
        answer = json.loads(text)
    except ValueError:
        raise no_json(text, url) from None
    if not isinstance(answer, dict):
        raise Failure(f"{url} answered 200 without choices: {said_in(answer)}", 400)
    return answer


def _joined(body: str) -> dict[str, Any]:
    """A streamed answer as it would be in one piece.

    Raises:
        Failure: It breaks off.
    """
    message: dict[str, Any] = {}
    finish, usage = None, None
    logps: list[Any] = []
    for chunk in _chunks(body):
        if chunk.get("error"):
            return chunk
        usage = chunk.get("usage") or usage
        for choice in (chunk.get("choices") or [])[:1]:
            finish = choice.get("finish_reason") or finish
            logps += _token_logps(choice.get("logprobs"))
            for name, value in (choice.get("delta") or choice.get("message") or {}).items():
                former = message.get(name)
                message[name] = former + value if type(former) is type(value) in (str, list) else value
    if finish is None and not re.search(r"^data:\s*\[DONE\]", body, re.MULTILINE):
        raise Failure(f"the stream of the answer breaks off: {body[-60:]!r}")
    choice = {"message": message, "finish_reason": finish, "logprobs": {"content": logps}}
    return {"choices": [choice], "usage": usage}


def _chunks(body: str) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data in ("", "[DONE]"):
            continue
        try:
            chunk = json.loads(data)
        except ValueError:
            raise Failure(f"the stream of the answer is cut off: {data[-60:]!r}") from None
        if isinstance(chunk, dict):
            yield chunk


def _read_message(message: Mapping[str, Any]) -> tuple[str, str, str]:
    """Reasoning, words and refusal of a message."""
    content = message.get("content")
    kinds: dict[str, list[Any]] = {"thoughts": [], "words": [], "refusal": [message.get("refusal")]}
    for part in content if isinstance(content, list) else [content]:
        kind = str(part.get("type")) if isinstance(part, dict) else ""
        name = "thoughts" if re.search("think|reason", kind) else "refusal" if kind == "refusal" else "words"
        kinds[name].append(part)
    thoughts, words, refusal = map(_words, kinds.values())
    beside = (_words(message.get(name)) for name in BESIDE)
    return thoughts or next(filter(None, beside), ""), words, refusal


def _words(value: Any) -> str:
    """The text of a part, of parts, or of what stands for one."""
    if isinstance(value, list):
        return "".join(map(_words, value))
    if isinstance(value, dict):
        return next((words for name in WORDS if (words := _words(value.get(name)))), "")
    return value if isinstance(value, str) else ""


def _tokens(usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens read and written, or None where they are not counted; some count thoughts in the total alone."""
    read, written, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if not (isinstance(read, int) and isinstance(written, int) and read > 0):
        return None, None
    return read, max(written, total - read) if isinstance(total, int) else written


def _token_logps(logprobs: Any) -> list[Any]:
    """What is said of each token of the words."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    return tokens if isinstance(tokens, list) else []


def _code(error: Any) -> int:
    """The status that an error states, or that of a bad request."""
    code = str(error.get("code") or error.get("status")) if isinstance(error, dict) else ""
    return int(code) if re.fullmatch("[45][0-9][0-9]", code) else 400
