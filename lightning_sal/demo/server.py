"""The server behind the page: one socket, one process, nothing asked of any other host."""

from __future__ import annotations

from collections.abc import Collection

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.themes import Base
from gradio.themes.utils.sizes import radius_lg

from lightning_sal.demo.bounds import Bounds
from lightning_sal.demo.gate import Gate
from lightning_sal.demo.page import CSS
from lightning_sal.demo.uploads import MEBIBYTE
from lightning_sal.demo.visitors import Visitors

SANS, MONO = ("ui-sans-serif", "system-ui", "sans-serif"), ("ui-monospace", "monospace")  # the system's: none is loaded


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
    theme.set(
        checkbox_border_color="*neutral_400", checkbox_border_color_dark="*neutral_400"
    )  # seen on dark ground too
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        "/",
        theme=theme,
        css=CSS.read_text(encoding="utf-8"),
        max_file_size=bounds.megabytes * MEBIBYTE,
        show_error=False,  # what visitors are told, `Clicks` tells
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    gate = Gate(app, visitors, host, allowed)
    return uvicorn.Server(uvicorn.Config(gate, log_level="warning", timeout_graceful_shutdown=3))
