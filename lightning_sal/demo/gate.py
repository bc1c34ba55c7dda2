"""What stands before the page's library: requests of this page alone, by visitors who name nothing but their own files.

The library reads any path and fetches any address that a request names as a file, before a function of the page is
called. So the paths of a request are checked here, where they enter, and what the page never asks is not there.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightning_sal.demo.visitors import COOKIE, Visitors, visitor_of

API = "/gradio_api"
READ = re.compile(rf"/(config|theme\.css|favicon\.ico|(assets|static)/.+|)|{API}/(queue/data|upload_progress|app_id)")
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
ASK = (f"{API}/queue/join", f"{API}/run/predict", f"{API}/cancel")
LONGEST = 2**20  # bytes of a question, whose photographs are uploaded before


class Refused(Exception):
    """A request that is not answered; the message is for whoever sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gate:
    """An ASGI application that hands on to the page what the page itself asks.

    Args:
        app: The page.
        visitors: Who has which files.
        host: Where the page listens.
        allowed: Other names by which browsers find it, as that of a proxy in front.
    """

    def __init__(self, app: ASGIApp, visitors: Visitors, host: str, allowed: Collection[str] = ()) -> None:
        self.app, self.visitors = app, visitors
        self._allowed = {name.lower() for name in allowed}
        self._names = {"localhost", socket.gethostname().lower(), host.lower(), *self._allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope, receive)
        visitor = visitor_of(request.cookies)
        try:
            self._check_origin(request.headers)
            if request.method == "POST":
                scope, receive, send = await self._post(request, visitor, send)
            else:
                self._check_read(request, visitor)
        except Refused as refused:
            return await JSONResponse({"detail": str(refused)}, refused.status)(scope, receive, send)
        return await self.app(scope, receive, send if visitor else self._welcoming(send))

    def _check_origin(self, headers: Headers) -> None:
        """No page of another origin may ask, nor one whose name was made to lead here (an address cannot be)."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _name_in(host)
        if name not in self._names and not _is_address(name):
            raise Refused(403, f"this page is not known as {name!r}: start it with --allow-host and that name")
        if origin is None:
            return
        where = urlsplit(origin)
        if where.netloc.lower() != host.lower() and _name_in(where.netloc) not in self._allowed:
            raise Refused(403, "a page of another origin may not ask this one")

    def _check_read(self, request: Request, visitor: str | None) -> None:
        path = request.scope["path"]
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "only GET, HEAD and POST are answered")
        if path.startswith(FILE):
            self._check_file(visitor, path.removeprefix(FILE))
        elif not READ.fullmatch(path):
            raise Refused(404, "there is nothing here")

    def _check_file(self, visitor: str | None, path: object) -> None:
        if not self.visitors.may_see(visitor, path):
            raise Refused(403, "this visitor has no such file: upload it, for a second time where that was long ago")

    async def _post(self, request: Request, visitor: str | None, send: Send) -> tuple[Scope, Receive, Send]:
        """What to hand on of a request that uploads or asks."""
        path = request.scope["path"]
        if path != UPLOAD and path not in ASK:
            raise Refused(404, "there is nothing here")
        if visitor is None:
            raise Refused(403, "open the page first, with cookies allowed: by its own each visitor has his files")
        if path == UPLOAD:
            plain = _with_header(request.scope, b"accept-encoding", b"identity")  # the answer is read here
            return plain, request.receive, self._noting(visitor, send)
        question, body = await _read_json(request)
        for named in _paths_in(question):
            self._check_file(visitor, named)
        return _with_header(request.scope, b"content-length", b"%d" % len(body)), _replay(body, request.receive), send

    def _noting(self, visitor: str, send: Send) -> Send:
        """Gives a visitor the files that the library says it has stored for him."""
        status, body = 0, b""

        async def note(message: Message) -> None:
            nonlocal status, body
            status, body = message.get("status", status), body + message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body") and status == 200:
                for path in json.loads(body):
                    self.visitors.give(visitor, path)
            await send(message)

        return note

    def _welcoming(self, send: Send) -> Send:
        """Tells a new visitor who he is."""
        cookie = f"{COOKIE}={self.visitors.welcome()}; Path=/; HttpOnly; SameSite=Lax"

        async def welcome(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        return welcome


def _name_in(netloc: str) -> str:
    """The host of HOST:PORT in lower case, without the brackets of an IPv6 address; empty where it cannot be read."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _read_json(request: Request) -> tuple[Any, bytes]:
    """A question, and the bytes that say just this, so that nobody behind reads another one in what was sent."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                raise Refused(413, f"a question has at most {LONGEST:,} bytes")
        question = json.loads(body)
        return question, json.dumps(question).encode()
    except (ValueError, RecursionError, ClientDisconnect):
        raise Refused(400, "a question is JSON, of no great depth") from None


def _paths_in(value: Any) -> Iterator[object]:
    """Whatever a question has under `path`, which is how the library tells a file, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _with_header(scope: Scope, name: bytes, value: bytes) -> Scope:
    return {**scope, "headers": [(key, old) for key, old in scope["headers"] if key != name] + [(name, value)]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then whatever comes behind it."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_message() -> Message:
        return next(messages, None) or await receive()

    return next_message
