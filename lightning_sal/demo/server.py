"""The server behind the page: one socket, one process, nothing asked of any other host."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.themes import Base
from gradio.themes.utils.sizes import radius_lg

from lightning_sal.demo.gate import Gate
from lightning_sal.demo.page import CSS
from lightning_sal.demo.uploads import MEBIBYTE, Bounds
from lightning_sal.demo.visitors import Visitors

SANS, MONO = ("ui-sans-serif", "system-ui", "sans-serif"), ("ui-monospace", "monospace")  # the system's: none is loaded


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


def server_of(
    page: gr.Blocks, bounds: Bounds, visitors: Visitors, host: str = "127.0.0.1", allowed: Collection[str] = ()
) -> uvicorn.Server:
    """A server of the page; `run(sockets=[listener])` serves until it is interrupted.

    Args:
        page: What `build` made.
        bounds: What is taken at most.
        visitors: Who has which files; those that `build` was given.
        host: Where it listens.
        allowed: Other names by which browsers find it.
    """
    theme = Base(primary_hue="indigo", neutral_hue="slate", radius_size=radius_lg, font=SANS, font_mono=MONO)
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        "/",
        theme=theme,
        css=CSS.read_text(encoding="utf-8"),
        max_file_size=bounds.megabytes * MEBIBYTE,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    gate = Gate(app, visitors, host, allowed)
    return uvicorn.Server(uvicorn.Config(gate, log_level="warning", timeout_graceful_shutdown=3))
