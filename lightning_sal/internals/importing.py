"""Loading large libraries in less time."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_sal.internals.signals import heard


@contextmanager
def importing() -> Iterator[None]:
    """Inside, large libraries are imported, and nobody looks for garbage among what they make.

    Python would do so hundreds of times, which takes about a tenth of the seconds. What is there at the end is
    not looked at again until the process ends. A Ctrl-C that a library took for a package that is not there still ends
    the command.
    """
    was_on, before = gc.isenabled(), heard()
    gc.disable()
    try:
        yield
        if heard() != before:
            raise KeyboardInterrupt
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries complain of what they find alive
    finally:
        if was_on:
            gc.enable()
