"""Models behind an API: OpenAI-compatible servers by `openai`, Gemini by `google-genai`.

Keys come from the environment, go into the client, and nowhere else: whatever a server or a library says of a failure is
rid of them before anyone sees it, and of a reply too. Limits of time and retrying are left to whoever asks, who must count
every attempt.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any, Protocol

from lightning_sal.clients import LOCAL
from lightning_sal.clients.completions import no_json, read_reply, said_in
from lightning_sal.clients.replies import Failure, Reply, mean_probability
from lightning_sal.clients.requests import Request
from lightning_sal.errors import UsageError
from lightning_sal.internals.shell import installing

log = logging.getLogger(__name__)

HIDDEN = "<key>"


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

    Servers differ in what they take beside model and messages. Where one refuses a field by name, the request is sent
    again at once with what stands in for it, and so are all after it.

    Args:
        model: Its name there.
        base_url: Address of another server than OpenAI's.
        max_tokens: Most tokens of an answer.
        temperature: At which it is sampled; None for the server's own. A model that takes none is asked without, and a line
            of the log says so.
        logprobs: Whether log-probabilities of the tokens are asked for, where the server has some.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        max_tokens: int,
        temperature: float | None = None,
        logprobs: bool = False,
    ) -> None:
        self.key = self.access(base_url)
        import openai

        self.model, self.base_url = model, base_url
        self._fields: dict[str, Any] = {"max_completion_tokens": max_tokens}
        if temperature is not None:
            self._fields["temperature"] = temperature
        if logprobs:
            self._fields["logprobs"] = True
        self._adaptations = _adaptations(max_tokens)
        self._first: asyncio.Event | None = None
        self._client = openai.AsyncOpenAI(api_key=self.key or "none", base_url=base_url, max_retries=0, timeout=None)
        self._completions = self._client.chat.completions  # which takes a second to load: no request should wait for it

    @staticmethod
    def access(base_url: str | None) -> str | None:
        """The key, which a server of one's own may need none of; nothing is imported.

        Raises:
            UsageError: There is none, or the library is missing.
        """
        _require("openai", "openai")
        return _key("OPENAI_API_KEY", optional=base_url is not None)

    async def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        images = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in request.images]
        first, *rest = request.turns
        messages: list[Any] = [{"role": "system", "content": request.system}] if request.system else []
        messages += [{"role": "user", "content": [*images, {"type": "text", "text": first}]}]
        messages += [{"role": ("assistant", "user")[i % 2], "content": text} for i, text in enumerate(rest)]
        try:
            async with self._first_alone():
                reply = await self._ask(messages)
        except Exception as error:  # of two libraries and what lies below them; none may show a key
            failure = _failure(error, getattr(error, "status_code", None), self.key)
            elsewhere = (isinstance(error, Failure) and not failure.passing) or failure.status in (404, 405)
            raise failure.because(MAY_LACK) if elsewhere and self.base_url else failure from None
        refusal = reply.refusal and scrub(reply.refusal, self.key)
        return replace(reply, text=scrub(reply.text, self.key), refusal=refusal)

    async def close(self) -> None:
        """See `Client.close`."""
        await self._client.close()

    async def _ask(self, messages: list[Any]) -> Reply:
        """One answer, by the fields that the server takes."""
        import openai

        while True:
            sent = self._fields
            try:
                # As it came: what is no completion must be told, and the library would read anything as one.
                answer = await self._completions.with_raw_response.create(
                    model=self.model, messages=messages, extra_body=sent
                )
                return read_reply(answer.http_response.text, str(answer.http_response.url))
            except openai.APIStatusError as error:
                if not self._adapted(error.response.text, sent):
                    raise
            except Failure as failure:
                if not self._adapted(str(failure), sent):
                    raise

    def _adapted(self, message: str, sent: Mapping[str, Any]) -> bool:
        """Whether to send again what a server refused with these words, since the fields are others now."""
        if sent is not self._fields:  # by a request that was under way beside it
            return True
        for adaptation in self._adaptations:
            names, changes = adaptation
            fields = {name: value for name, value in {**sent, **changes}.items() if value is not None}
            if fields != sent and re.search(names, message):
                self._adaptations.remove(adaptation)
                self._fields = fields
                if "temperature" in sent and "temperature" not in fields:
                    log.warning(f"{self.model} takes no temperature of {sent['temperature']:g}: it is asked without")
                return True
        return False

    @asynccontextmanager
    async def _first_alone(self) -> AsyncIterator[None]:
        """Lets others wait, though not for long, for the first request, so that a field is refused once."""
        first, self._first = self._first, self._first or asyncio.Event()
        if first is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(first.wait(), PATIENCE)
        try:
            yield
        finally:
            self._first.set()


MAY_LACK = "the address of most servers ends in /v1, which the base URL may lack"
PATIENCE = 1.0  # seconds; a refusal comes at once, an answer takes longer


def _adaptations(max_tokens: int) -> list[tuple[str, dict[str, Any]]]:
    """What a server says that does not take a request as it is -> the fields that change; None leaves one out."""
    ask = r"\b(?:only|must|requires?d?|enable|set)\b"
    return [
        ("max_(?:completion_)?tokens", {"max_completion_tokens": None, "max_tokens": max_tokens}),
        ("stream_options|include_usage", {"stream_options": None}),
        ("temperature", {"temperature": None}),
        ("(?i)log_?prob", {"logprobs": None}),
        (
            rf"(?i){ask}.{{0,60}}\bstream|\bstream.{{0,60}}{ask}",
            {"stream": True, "stream_options": {"include_usage": True}},
        ),
    ]


class GeminiClient:
    """A model behind Gemini's own API.

    Args:
        model: Its name there.
        base_url: Address of another server than Google's.
        max_tokens: Most tokens of an answer, thoughts included.
        temperature: At which it is sampled; None for its own.
        logprobs: Whether log-probabilities of the tokens are asked for, where the model has some.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        max_tokens: int,
        temperature: float | None = None,
        logprobs: bool = False,
    ) -> None:
        self.key = self.access(base_url)
        from google import genai
        from google.genai import types

        self.model, self._types = model, types
        self._config = types.GenerateContentConfig(
            max_output_tokens=max_tokens, temperature=temperature, response_logprobs=logprobs or None
        )
        options = types.HttpOptions(
            base_url=base_url,
            retry_options=types.HttpRetryOptions(attempts=1),  # unset, a broken connection is tried again, uncounted
        )
        self._client = genai.Client(api_key=self.key, http_options=options)

    @staticmethod
    def access(base_url: str | None) -> str | None:
        """The key, of Google's or any other server; nothing is imported.

        Raises:
            UsageError: There is none, or the library is missing.
        """
        _require("google.genai", "google-genai")
        return _key("GEMINI_API_KEY", "GOOGLE_API_KEY")

    async def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        part, content = self._types.Part, self._types.Content
        first, *rest = request.turns
        images = [part.from_bytes(data=image, mime_type="image/jpeg") for image in request.images]
        contents: list[Any] = [content(role="user", parts=[*images, part.from_text(text=first)])]
        for i, text in enumerate(rest):
            contents.append(content(role=("model", "user")[i % 2], parts=[part.from_text(text=text)]))
        try:
            answer = await self._generate(contents, request.system)
            finish = answer.candidates[0].finish_reason if answer.candidates else None
            blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
            usage, text = answer.usage_metadata, answer.text or ""
            refusal = blocked or (finish if not text and finish not in _ENDS else None)
            said = answer.candidates[0].logprobs_result if answer.candidates else None
            tokens = (said and said.chosen_candidates) or []
            counts = usage and [usage.candidates_token_count, usage.thoughts_token_count]
            return Reply(
                text=scrub(text, self.key),
                input_tokens=usage and usage.prompt_token_count,
                output_tokens=sum(count or 0 for count in counts) if counts and any(counts) else None,
                refusal=str(getattr(refusal, "value", refusal)) if refusal else None,
                truncated=finish == "MAX_TOKENS",
                confidence=mean_probability(token.log_probability for token in tokens),
            )
        except json.JSONDecodeError as error:
            raise _failure(no_json(error.doc, "the server"), None, self.key) from None
        except Exception as error:  # of two libraries and what lies below them; none may show a key
            raise _failure(error, getattr(error, "code", None), self.key) from None

    async def _generate(self, contents: list[Any], system: str) -> Any:
        """One answer, without log-probabilities from the time on when they are refused."""
        from google.genai import errors

        sent = self._config
        asked = sent.model_copy(update={"system_instruction": system or None})
        try:
            return await self._client.aio.models.generate_content(model=self.model, contents=contents, config=asked)
        except errors.ClientError as error:
            if not (sent.response_logprobs and re.search("(?i)log_?prob", str(error))):
                raise
            self._config = sent.model_copy(update={"response_logprobs": None})
            return await self._generate(contents, system)

    async def close(self) -> None:
        """See `Client.close`."""
        await self._client.aio.aclose()


_ENDS = (None, "STOP", "MAX_TOKENS")
_PROVIDERS: dict[str, type[OpenAIClient] | type[GeminiClient]] = {"gemini": GeminiClient, "openai": OpenAIClient}


def require_access(model: str, base_url: str | None) -> None:
    """Check that a model behind an API can be asked, as far as that is known without asking; nothing is imported.

    Args:
        model: Its name, as `make_client` takes it.
        base_url: Likewise.

    Raises:
        UsageError: A library or a key is missing.
    """
    _require("tenacity", "tenacity")
    _provider(model)[0].access(base_url)


def _provider(model: str) -> tuple[type[OpenAIClient] | type[GeminiClient], str]:
    """The client of a model behind an API, and its name there."""
    prefix, _, name = model.partition(":")
    return (_PROVIDERS[prefix], name) if prefix in _PROVIDERS and name else (OpenAIClient, model)


def make_client(
    model: str,
    base_url: str | None,
    max_tokens: int,
    concurrency: int = 1,
    temperature: float | None = None,
    logprobs: bool = False,
) -> Client:
    """The client of a model: `local:FOLDER` loads it here, `gemini:NAME` is Gemini's API, any other name OpenAI's.

    `openai:NAME` is NAME at OpenAI's, or at a server that is compatible with it.

    Args:
        model: Its name, folder or hub name.
        base_url: Address of another server than that of the API.
        max_tokens: Most tokens of an answer.
        concurrency: Requests that are under way at once, of which a model that is loaded here makes a batch.
        temperature: At which it is sampled; None for its own. One that is loaded here gives the likeliest answer.
        logprobs: Whether replies are to have a confidence, where the API has log-probabilities; one that is loaded here has
            none.

    Raises:
        UsageError: A library or a key is missing.
    """
    if model.startswith(LOCAL):
        from lightning_sal.clients.local import LocalClient

        return LocalClient(model.removeprefix(LOCAL), max_tokens, concurrency)
    kind, name = _provider(model)
    return kind(name, base_url, max_tokens, temperature, logprobs)


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
    if isinstance(error, Failure):
        return Failure(scrub(str(error), key), error.status)
    status = status if isinstance(status, int) else None
    response = getattr(error, "response", None)
    body = getattr(response, "text", "")
    message = f"{status} {said_in(body)}" if isinstance(body, str) and body.strip() else " ".join(str(error).split())
    reason = f"{type(error).__name__}: {scrub(message, key)[:300]}".rstrip(": ")
    return Failure(reason, status, wait_asked_for(getattr(response, "headers", {}), str(error)))


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
        raise UsageError(f"this model needs the package {package}: {installing('annotate')}")


def _data_url(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()
