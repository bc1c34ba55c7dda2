"""One vLLM server, by its HTTP routes: adapters, completions, sleep."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import httpx2

from lightning_sal.policy.chat import chat
from lightning_sal.samplers.vllm.answers import read_responses, settings
from lightning_sal.samples import Message

log = logging.getLogger(__name__)

_POLL_S = 1.0


class Refused(ConnectionError):
    """It answers that a request cannot be: a status such as 404."""

    def __init__(self, line: str, status: int = 0) -> None:  # all but the line has a default: it travels between ranks
        super().__init__(line)
        self.status = status


class Away(ConnectionError):
    """There is no server, or one that breaks: a refused or cut connection, or a status of 500 or above."""


class Server:
    """A server that must be there when it is first asked, and may be started anew later.

    Once it has answered, it is waited for: a request that finds it away or breaking (a refused or cut connection, a status
    of 500 or above) is asked once more when `/health` says 200 again. One that was started anew knows no adapters and
    answers 404 to their name, so it is told them again, from the folder where they lie.

    Args:
        url: Its address.
        timeout_s: Seconds that it may take to answer a request, and to come back.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url, self.timeout_s = url.rstrip("/"), timeout_s
        # The server stands beside the trainer: no proxy is asked for it. As many connections as there are requests.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx2.Client(base_url=self.url, timeout=timeout_s, trust_env=False, limits=limits)
        self._met = self._checked = False
        self._waiting = threading.Lock()  # of many requests that find it away, one waits and says so
        self.given_up = threading.Event()  # set where nobody waits for its answers any more, as after Ctrl-C

    def complete(self, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of `/v1/chat/completions` under the adapters of a folder.

        Raises:
            ConnectionError: If there is none, or it is of other adapters.
        """
        question = {"model": folder.name} | question
        try:
            answer = self._ask("/v1/chat/completions", question)
        except Refused as refused:
            if refused.status != 404:
                raise
            log.warning(f"vLLM at {self.url} no longer knows the adapters, as after a restart: they are told again")
            self.load(folder)
            answer = self._ask("/v1/chat/completions", question)
        if answer.get("model") != folder.name:
            raise self.error(
                f"it answers as {answer.get('model')} where {folder.name} was asked: other adapters or none"
            )
        return answer

    def load(self, folder: Path) -> None:
        """Tell it the adapters in a folder, under the folder's name; it may know them already."""
        try:
            self._post("/v1/load_lora_adapter", {"lora_name": folder.name, "lora_path": str(folder)})
        except Refused as refused:
            if refused.status == 404 and folder.name in str(refused):
                raise self.error(
                    f"it finds no adapters at {folder}: it must see that folder at the same path"
                ) from refused
            if "already been loaded" not in str(refused):
                raise

    def unload(self, name: str) -> None:
        """Drop adapters, which it may have forgotten."""
        try:
            self._post("/v1/unload_lora_adapter", {"lora_name": name})
        except Refused as refused:
            if refused.status != 404:
                raise

    def check_log_probs(self, folder: Path, token: int) -> None:
        """Ask, once, for one token that a bias of +100 makes certain: its log-probability is 0 only if bias counts in it.

        Raises:
            ConnectionError: If it does not, as with vLLM's default, the log-probabilities of the model's raw output.
        """
        if self._checked:
            return
        messages = chat([Message("user", "?")])
        question = {"messages": messages, "max_completion_tokens": 1, "logit_bias": {str(token): 100.0}} | settings(1.0)
        try:
            ((_, (logp,)),) = read_responses(self.complete(folder, question), 1, 1, (token,))
        except ValueError as error:
            raise self.error(f"one certain token: {error}") from error
        if abs(logp) > 1e-3:
            raise self.error(
                f"a token that logit_bias makes certain has log-probability {logp:.3f}, not 0: the server leaves "
                "temperature and bias out, so give it --logprobs-mode processed_logprobs"
            )
        self._checked = True

    def wake(self) -> None:
        """Have it take its memory again, if it sleeps."""
        self._post("/wake_up", {})

    def sleep(self) -> None:
        """Have it move its weights to main memory and drop its cache (level 1); adapters stay known."""
        self._post("/sleep?level=1", {})

    def error(self, what: str) -> ConnectionError:
        """What went wrong, with the address."""
        return ConnectionError(f"vLLM at {self.url}: {what}")

    def _ask(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        answer = self._post(path, question)
        try:
            return dict(json.loads(answer))
        except (TypeError, ValueError) as error:
            raise self.error(f"{path} answered what is no JSON object: {answer[:80]!r}") from error

    def _post(self, path: str, question: dict[str, Any]) -> bytes:
        """What it answers to a JSON body, at the second try if it was away at the first and was there before."""
        met = self._met
        try:
            return self._send("POST", path, question)
        except Away as away:
            if not met:
                raise
            self._wait(away)
            return self._send("POST", path, question)

    def _send(self, method: str, path: str, question: dict[str, Any] | None = None) -> bytes:
        try:
            answer = self._http.request(method, path, json=question)
        except httpx2.ReadTimeout as error:
            raise self.error(f"{path} gave no answer in {self.timeout_s:g} s, raise timeout_s if it is busy") from error
        except httpx2.HTTPError as error:
            raise Away(f"vLLM at {self.url}: {path} failed: {error}") from error
        if not answer.is_success:
            line = f"vLLM at {self.url}: {path} answered {answer.status_code} {' '.join(answer.text.split())[:300]}"
            raise Refused(line, answer.status_code) if answer.status_code < 500 else Away(line)
        self._met = True
        return answer.content

    def _wait(self, away: Away) -> None:
        """Until `/health` says that it is there.

        Raises:
            Away: If it has not come back in `timeout_s`, or nobody waits any more.
        """
        deadline, said = time.monotonic() + self.timeout_s, False
        with self._waiting:
            while True:
                try:
                    self._send("GET", "/health")
                    return
                except ConnectionError:
                    if self.given_up.is_set() or time.monotonic() > deadline:
                        raise away from None
                if not said:
                    log.warning(f"{away}; it is waited for, up to {self.timeout_s:g} s")
                said = True
                self.given_up.wait(_POLL_S)
