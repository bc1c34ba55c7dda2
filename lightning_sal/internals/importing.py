"""Loading large libraries in less time."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_sal.internals.signals import end_at_once, heard


@contextmanager
def importing() -> Iterator[None]:
    """Inside, large libraries are imported, and nobody looks for garbage among what they make.

    Python would do so hundreds of times, which takes about a tenth of the seconds. What is there at the end is
    not looked at again until the process ends. A signal to end, which a library may take for a package that is not there,
    ends the process here: libraries of which half is loaded may crash where Python ends in order.
    """
    was_on, before = gc.isenabled(), heard()
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries complain of what they find alive
    finally:
        if (code := heard()) != before and code is not None:
            end_at_once(code, "")
        if was_on:
            gc.enable()
