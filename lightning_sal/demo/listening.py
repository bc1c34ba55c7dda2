"""The socket of the page, which is there before the models are, and what it answers until then."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from lightning_sal.pages.html import escaped, page_head

AGAIN = 2  # seconds until a browser that came early asks again
SILENCE = 5  # seconds after which a visitor who says nothing is left
STYLE = "main { max-width: 40rem; margin: 20vh auto 0 } p { margin: .6rem 0; overflow-wrap: anywhere }"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any that is free.

    Raises:
        OSError: The port is taken, or the host no address of this machine.
        ValueError: There is no such port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OverflowError:
        raise ValueError(f"--port {port}: ports go from 0 to 65535") from None
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "taken; stop what listens there, or name another" if taken else error.strerror
        raise OSError(f"--port {port} of --host {host}: {reason}") from error


def address(listener: socket.socket) -> str:
    """Where a browser finds the page."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Whether this machine alone reaches a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


@contextmanager
def saying(listener: socket.socket, words: str) -> Iterator[None]:
    """Inside, whoever opens the page reads what is going on; the browser asks again until the page itself is there.

    Args:
        listener: What `listen` made; it is open afterwards, for the page.
        words: A sentence.
    """
    page = (page_head("Loading", STYLE) + f"<main><h1>Loading</h1><p>{escaped(words)}</p></main>").encode()

    class Answer(BaseHTTPRequestHandler):
        timeout = SILENCE

        def do_GET(self) -> None:
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Refresh", str(AGAIN))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(listener.getsockname()[:2], Answer, bind_and_activate=False)
    server.socket.close()  # its own, which is bound to nothing
    server.socket = listener
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
