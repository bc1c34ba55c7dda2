"""Loading large libraries in less time."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Inside, large libraries are imported, and nobody looks for garbage among what they make.

    Python would do so hundreds of times, which takes about a tenth of the seconds. What is there at the end is
    not looked at again until the process ends.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries complain of what they find alive
    finally:
        if was_on:
            gc.enable()
