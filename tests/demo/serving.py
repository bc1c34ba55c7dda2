"""A page that is served in this process."""

import threading
from contextlib import contextmanager

from lightning_sal.demo.bounds import Bounds
from lightning_sal.demo.listening import address, listen
from lightning_sal.demo.page import build
from lightning_sal.demo.server import server_of
from lightning_sal.demo.visitors import Visitors

BOUNDS = Bounds(megabytes=1, images=4, megapixels=2, waiting=1)


@contextmanager
def served(predictors, note="", allowed=()):
    """The address of the page."""
    with listen("127.0.0.1", 0) as listener:
        visitors = Visitors()
        server = server_of(build(predictors, BOUNDS, visitors, note), BOUNDS, visitors, allowed=allowed)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield address(listener)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
