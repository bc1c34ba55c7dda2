"""Models behind an API: OpenAI-compatible servers by `openai`, Gemini by `google-genai`.

Keys come from the environment, go into the client, and nowhere else: whatever a server or a library says of a failure is
rid of them before anyone sees it, and of a reply too. Limits of time and retrying are left to the runner, which must count
every attempt.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any, Protocol

from lightning_sal.annotation.requests import Request
from lightning_sal.errors import UsageError

FATAL = frozenset({401, 402, 404})  # no key, no money, no such model: the next request would fare no better
PASSING = frozenset({408, 409, 425, 429})
HIDDEN = "<key>"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered.

    Args:
        text: All that it wrote.
        input_tokens: Tokens that were read, or None where it is not said.
        output_tokens: Tokens that were written, thoughts included, or None.
        refusal: Why it would not answer, or None.
        truncated: Whether it reached the limit of tokens.
    """

    text: str
    input_tokens: int | None
    output_tokens: int | None
    refusal: str | None = None
    truncated: bool = False


class Failure(Exception):
    """A request without an answer; the message is one line without keys.

    Args:
        reason: What happened.
        status: The HTTP status, or None where there is none.
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after = status, retry_after

    @property
    def fatal(self) -> bool:
        """Whether every request would fail like this."""
        return self.status in FATAL

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status is None or self.status >= 500 or self.status in PASSING

    @property
    def free(self) -> bool:
        """Whether the server turned the request away before any work."""
        return self.status is not None and self.status < 500


class Client(Protocol):
    """A model."""

    async def ask(self, request: Request) -> Reply:
        """One answer.

        Raises:
            Failure: There is none.
        """
        ...

    async def close(self) -> None:
        """Ends what was opened."""
        ...


class OpenAIClient:
    """A model behind an OpenAI-compatible API, by its chat completions.

    Args:
        model: Its name there.
        base_url: Address of another server than OpenAI's.
        max_tokens: Most tokens of an answer.
    """

    def __init__(self, model: str, base_url: str | None, max_tokens: int) -> None:
        _require("openai", "openai")
        import openai

        self.key = _key("OPENAI_API_KEY", optional=base_url is not None)
        self.model, self.max_tokens = model, max_tokens
        self._client = openai.AsyncOpenAI(api_key=self.key or "none", base_url=base_url, max_retries=0, timeout=None)
        self._completions = self._client.chat.completions  # which takes a second to load: no request should wait for it

    async def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in request.images]
        first, *rest = request.turns
        messages: list[Any] = [{"role": "user", "content": [*images, {"type": "text", "text": first}]}]
        messages += [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(rest)]
        try:
            answer = await self._completions.create(
                model=self.model, messages=messages, max_completion_tokens=self.max_tokens
            )
            (choice, *_), usage = answer.choices, answer.usage
            refused = choice.finish_reason == "content_filter"
            return Reply(
                text=scrub(choice.message.content or "", self.key),
                input_tokens=usage and usage.prompt_tokens,
                output_tokens=usage and usage.completion_tokens,
                refusal=scrub(choice.message.refusal or ("content filter" if refused else ""), self.key) or None,
                truncated=choice.finish_reason == "length",
            )
        except Exception as error:  # of two libraries and what lies below them; none may show a key
            raise _failure(error, getattr(error, "status_code", None), self.key) from None

    async def close(self) -> None:
        """See `Client.close`."""
        await self._client.close()


class GeminiClient:
    """A model behind Gemini's own API.

    Args:
        model: Its name there.
        base_url: Address of another server than Google's.
        max_tokens: Most tokens of an answer, thoughts included.
    """

    def __init__(self, model: str, base_url: str | None, max_tokens: int) -> None:
        _require("google.genai", "google-genai")
        from google import genai
        from google.genai import types

        self.key = _key("GEMINI_API_KEY", "GOOGLE_API_KEY")
        self.model, self._types = model, types
        self._config = types.GenerateContentConfig(max_output_tokens=max_tokens)
        options = types.HttpOptions(
            base_url=base_url,
            retry_options=types.HttpRetryOptions(attempts=1),  # unset, a broken connection is tried again, uncounted
        )
        self._client = genai.Client(api_key=self.key, http_options=options)

    async def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        part, content = self._types.Part, self._types.Content
        first, *rest = request.turns
        images = [part.from_bytes(data=image, mime_type="image/jpeg") for image in request.images]
        contents: list[Any] = [content(role="user", parts=[*images, part.from_text(text=first)])]
        for i, text in enumerate(rest):
            contents.append(content(role=("model", "user")[i % 2], parts=[part.from_text(text=text)]))
        try:
            answer = await self._client.aio.models.generate_content(
                model=self.model, contents=contents, config=self._config
            )
            finish = answer.candidates[0].finish_reason if answer.candidates else None
            blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
            usage, text = answer.usage_metadata, answer.text or ""
            refusal = blocked or (finish if not text and finish not in _ENDS else None)
            said = usage and [usage.candidates_token_count, usage.thoughts_token_count]
            return Reply(
                text=scrub(text, self.key),
                input_tokens=usage and usage.prompt_token_count,
                output_tokens=sum(count or 0 for count in said) if said and any(said) else None,
                refusal=str(getattr(refusal, "value", refusal)) if refusal else None,
                truncated=finish == "MAX_TOKENS",
            )
        except Exception as error:  # of two libraries and what lies below them; none may show a key
            raise _failure(error, getattr(error, "code", None), self.key) from None

    async def close(self) -> None:
        """See `Client.close`."""
        await self._client.aio.aclose()


_ENDS = (None, "STOP", "MAX_TOKENS")
_PROVIDERS: dict[str, Callable[..., Client]] = {"gemini": GeminiClient}


def make_client(model: str, base_url: str | None, max_tokens: int) -> Client:
    """The client of a model: `gemini:NAME` by Gemini's API, any other name by OpenAI's.

    Raises:
        UsageError: A library or a key is missing.
    """
    prefix, _, name = model.partition(":")
    if prefix in _PROVIDERS and name:
        return _PROVIDERS[prefix](name, base_url, max_tokens)
    return OpenAIClient(model, base_url, max_tokens)


def scrub(text: str, key: str | None) -> str:
    """A text without the key, should it hold it."""
    return text.replace(key, HIDDEN) if key else text


def wait_asked_for(headers: Mapping[str, str], body: str) -> float | None:
    """Seconds that a server asks to wait: by `Retry-After` (seconds or a date), or as Gemini does in its body."""
    stated = headers.get("retry-after", "")
    try:
        return max(0.0, float(stated))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        delay = re.search(r"retryDelay\W+(\d+(?:\.\d+)?)s", body)
        return float(delay[1]) if delay else None


def _failure(error: Exception, status: Any, key: str | None) -> Failure:
    said = scrub(" ".join(str(error).split()), key)[:300]
    headers = getattr(getattr(error, "response", None), "headers", {})
    status = status if isinstance(status, int) else None
    return Failure(f"{type(error).__name__}: {said}".rstrip(": "), status, wait_asked_for(headers, str(error)))


def _key(*names: str, optional: bool = False) -> str | None:
    key = next((value for name in names if (value := os.environ.get(name, "").strip())), None)
    if key is None and not optional:
        raise UsageError(f"no key: put it into the environment variable {' or '.join(names)}")
    return key


def _require(module: str, package: str) -> None:
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UsageError(f"this model needs the package {package}: pip install 'lightning-sal[annotate]'")


def _data_url(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()
