"""Ctrl-C and SIGTERM: the first ends a command in order, the second at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning_sal.errors import INTERRUPTED, TERMINATED, Terminated

_SHOW_CURSOR = "\x1b[?25h"
_HEEDED: set[signal.Signals] = set()  # for which there is a handler of ours to come back to
_HEARD: list[int] = []  # the exit code of the signal that has come


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, and reaches the processes that this one has started, and Ctrl-C raises
    KeyboardInterrupt; after either, another one ends the process at once. `heard` tells what has come.

    Where Ctrl-C is ignored, as in the background of a shell, it stays so.
    """
    _HEARD.clear()

    def terminate(*_: Any) -> None:
        for child in multiprocessing.active_children():
            child.terminate()
        _once(TERMINATED)
        raise Terminated

    def interrupt(*_: Any) -> None:
        _once(INTERRUPTED)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # where no signal can be handled
        yield
        return
    handlers: dict[signal.Signals, Callable[..., None]] = {signal.SIGTERM: terminate}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handlers[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    _HEEDED.update(handlers)
    try:
        yield
    finally:
        _HEEDED.difference_update(handlers)
        for number, handler in before.items():
            signal.signal(number, handler)


def heard() -> int | None:
    """The exit code of the signal that has come, also where a library has made another error of it, or none."""
    return _HEARD[0] if _HEARD else None


def next_ends_at_once() -> None:
    """Let a Ctrl-C from now on end the process at once, after a library has set it to be ignored while it tidies up."""
    if signal.SIGINT in _HEEDED and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: end_at_once(INTERRUPTED))


def end_at_once(code: int, how: str = ", at once") -> None:
    """End the process without tidying up; its children too. `how` is said behind what has ended it."""
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), f"{_SHOW_CURSOR}\n".encode())  # which a progress bar has hidden
    os.write(2, f"lightning: {'terminated' if code == TERMINATED else 'interrupted'}{how}\n".encode())
    os._exit(code)


def _once(code: int) -> None:
    if _HEARD:
        end_at_once(code)
    _HEARD.append(code)
