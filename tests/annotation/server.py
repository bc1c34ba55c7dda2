"""A server on loopback that speaks as OpenAI and as Gemini do, and misbehaves as it is told."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

LEVELS = 5  # grey levels between two photographs of a test
NO_IMAGE = -1  # the number of what is asked without one
INPUT, OUTPUT = 700, 150  # tokens that it says a usual request took
TITLES = {
    "rg": ("Scene Description", "Salient Area Identification and Explanation", "Final Conclusion"),
    "ins": ("Scene Description", "Identify Salient Instances", "Final Conclusion"),
    "co": ("Object Identification", "Co-salience Deduction", "Final Conclusion"),
}


@dataclass(frozen=True)
class Asked:
    """A request as the server saw it: the image it is about, its texts, its images, and what became of it."""

    image: int
    texts: tuple[str, ...]
    images: tuple[bytes, ...]
    deed: str
    headers: Mapping[str, str]
    most_tokens: int
    system: str = ""


@dataclass
class Model:
    """What the server plays.

    Args:
        deeds: Number of an image -> what happens to the requests about it by turns; the last one stays, and "ok" is usual.
        answer: Text of the question and number of the image -> an answer, in place of the usual one.
        delay: Seconds until it answers.
        raw: Body of a request to the OpenAI API -> status, content type and content of the answer, in place of all others.
        logps: Log-probabilities of the tokens of every answer, for who asks for them; without, it has none, and says so.
    """

    deeds: Mapping[int, Sequence[str]] = field(default_factory=dict)
    answer: Callable[[str, int], str] | None = None
    delay: float = 0.0
    raw: Callable[[dict[str, Any]], tuple[int, str, bytes]] | None = None
    logps: Sequence[float] | None = None
    log: list[Asked] = field(default_factory=list)
    actions: dict[int, Callable[[], None]] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        self.lock, self.released = threading.Lock(), threading.Event()

    def next_deed(self, image: int) -> str:
        turns = self.deeds.get(image, ["ok"])
        before = sum(asked.image == image for asked in self.log)
        return turns[min(before, len(turns) - 1)]

    def at_request(self, count: int, action: Callable[[], None]) -> None:
        """Has something happen when so many requests have come."""
        self.actions[count] = action

    def about(self, image: int) -> list[Asked]:
        return [asked for asked in self.log if asked.image == image]


def usual_answer(text: str, image: int) -> str:
    """An answer that keeps the form that the packaged question asks for."""
    kind = "ins" if "<ins>" in text else "co" if "image1" in text else "rg"
    steps = "\n".join(f"{title}: the {title.lower()} of number {image}." for title in TITLES[kind])
    counted = re.search(r"with (\d+) objects", text)
    said = {
        "rg": "<rg>the bright disc</rg>",
        "ins": "".join(f"<ins>object {i} from the left</ins>" for i in range(int(counted[1]) if counted else 0)),
        "co": "<rg>[semantic] disc</rg>",
    }[kind]
    return f"<think>\n{steps}\n</think>\n<answer>{said}</answer>"


def image_number(picture: bytes) -> int:
    """The number of a photograph of the tests, whose corner is grey of that level; for others one of their content."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L")).astype(int)
    corner = pixels[:3, :3]
    return round(corner.mean() / LEVELS) if np.ptp(corner) < LEVELS / 2 else int(pixels.sum())


DEEDS: dict[str, Callable[[str, int], str]] = {
    "ok": usual_answer,
    "wrong tags": lambda text, image: usual_answer(text, image).replace("rg>", "region>"),
    "says mask": lambda text, image: usual_answer(text, image).replace("number", "the mask, number"),
    "cut JSON in the answer": lambda text, image: '{"think": "Scene Descr',
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        gemini = "generateContent" in self.path
        texts, pictures, most, system = _gemini(body) if gemini else _openai(body)
        if _asks_logps(body) and self.model.logps is None and not self.model.raw:
            return self.say(400, _error("Logprobs is not enabled for this model", 400))
        image = image_number(pictures[0]) if pictures else NO_IMAGE
        with self.model.lock:
            deed = self.model.next_deed(image)
            self.model.log.append(Asked(image, texts, pictures, deed, dict(self.headers), most, system))
            self.model.actions.get(len(self.model.log), lambda: None)()
        if self.model.raw:
            status, kind, content = self.model.raw(body)
            return self.send_bytes(status, content, len(content), {"Content-Type": kind})
        time.sleep(self.model.delay)
        said = (self.model.answer or DEEDS.get(deed, usual_answer))(texts[0], image)
        said = said.replace(" of ", f" at turn {len(texts)} of ")  # nobody says the same twice
        if deed == "echo in the answer":
            said, deed = f"you sent {dict(self.headers)}", "ok"
        logps = self.model.logps if _asks_logps(body) else None
        answer = _gemini_reply(said, logps=logps) if gemini else _openai_reply(said, logps=logps)
        if deed in DEEDS:
            return self.say(200, answer)
        reply = json.dumps(answer).encode()
        match deed:
            case "429":
                self.say(429, _error("slow down", 429))
            case "429 after":
                self.say(429, _error("slow down", 429), {"Retry-After": "0.05"})
            case "500":
                self.say(500, _error("something broke", 500))
            case "echo":
                self.say(500, _error(f"internal error, headers {dict(self.headers)} at {self.path}", 500))
            case "no key":
                self.say(401, _error(f"unknown key in {dict(self.headers)}", 401))
            case "bad request":
                self.say(400, _error("this image is not allowed", 400))
            case "refusal":
                self.say(200, _gemini_reply("", "SAFETY") if gemini else _openai_reply(None, refusal="I will not."))
            case "hang":
                self.model.released.wait(60)
                self.close_connection = True
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            case "cut body":  # fewer bytes than announced
                self.send_bytes(200, reply[:60], len(reply))
                self.close_connection = True
            case "cut JSON":  # all announced bytes, which are no JSON
                self.send_bytes(200, reply[:60], 60)
            case _:
                raise AssertionError(deed)
        return None

    def say(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_bytes(status, content, len(content), headers or {})

    def send_bytes(self, status: int, content: bytes, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(length),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # whoever asked was killed or lost patience
            super().handle()


class Server:
    """Runs a model on a free port of loopback while a `with` block lasts."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __enter__(self) -> Model:
        handler = type("Bound", (Handler,), {"model": self.model})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        self.model.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self.model

    def __exit__(self, *_: object) -> None:
        self.model.released.set()
        self.http.shutdown()
        self.http.server_close()


def _openai(body: dict[str, Any]) -> tuple[tuple[str, ...], tuple[bytes, ...], int, str]:
    messages = body["messages"]
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    first, *rest = messages
    assert [message["role"] for message in messages[:3]] == ["user", "assistant", "user"][: len(messages)]
    parts = {kind: [part for part in first["content"] if part["type"] == kind] for kind in ("image_url", "text")}
    pictures = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts["image_url"]]
    texts = (parts["text"][0]["text"], *(message["content"] for message in rest))
    return texts, tuple(pictures), body["max_tokens" if "max_tokens" in body else "max_completion_tokens"], system


def _gemini(body: dict[str, Any]) -> tuple[tuple[str, ...], tuple[bytes, ...], int, str]:
    first, *rest = body["contents"]
    assert [content["role"] for content in body["contents"][:3]] == ["user", "model", "user"][: len(body["contents"])]
    pictures = [
        base64.b64decode(part["inlineData"]["data"], altchars=b"-_") for part in first["parts"] if "inlineData" in part
    ]
    texts = [part["text"] for content in (first, *rest) for part in content["parts"] if "text" in part]
    system = "".join(part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"])
    return tuple(texts), tuple(pictures), body["generationConfig"]["maxOutputTokens"], system


def _asks_logps(body: dict[str, Any]) -> bool:
    return bool(body.get("logprobs") or body.get("generationConfig", {}).get("responseLogprobs"))


def _openai_reply(text: str | None, refusal: str | None = None, logps: Sequence[float] | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    tokens = logps and {"content": [{"token": "t", "logprob": each, "top_logprobs": []} for each in logps]}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": tokens}],
        "usage": usage,
    }


def _gemini_reply(text: str, finish: str = "STOP", logps: Sequence[float] | None = None) -> dict[str, Any]:
    usage = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT - 50, "thoughtsTokenCount": 50}
    content = {"role": "model", "parts": [{"text": text}] if text else []}
    candidate: dict[str, Any] = {"content": content, "finishReason": finish, "index": 0}
    if logps:
        chosen = [{"token": "t", "tokenId": 1, "logProbability": each} for each in logps]
        candidate["logprobsResult"] = {"chosenCandidates": chosen}
    return {"candidates": [candidate], "usageMetadata": usage}


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "code": status, "status": "ERROR"}}
