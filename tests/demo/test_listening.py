"""Where the page is served, and what is there before it."""

import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from lightning_sal.demo.listening import address, is_loopback, listen, saying

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def test_a_free_port_is_found_and_named():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener) == f"http://127.0.0.1:{port}"
        assert port > 0


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            OSError, match=f"^--port {port} of --host 127.0.0.1: taken; stop what listens there, or name"
        ):
            listen("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine_is_one_line():
    with pytest.raises(OSError, match=r"^--port 0 of --host 192\.0\.2\.1: ") as raised:
        listen("192.0.2.1", 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_one_line(port):
    with pytest.raises(ValueError, match=f"--port {port}: ports go from 0 to 65535"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "alone", "where"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:7860"),
        ("::1", True, "http://[::1]:7860"),
        ("0.0.0.0", False, "http://0.0.0.0:7860"),
        ("192.0.2.1", False, "http://192.0.2.1:7860"),
    ],
)
def test_only_loopback_is_reached_by_this_machine_alone(host, alone, where):
    listener = SimpleNamespace(getsockname=lambda: (host, 7860))
    assert is_loopback(listener) == alone
    assert address(listener) == where


def test_who_comes_early_reads_what_is_going_on_and_asks_again():
    with listen("127.0.0.1", 0) as listener:
        for words in ("Loading <b>a</b>", "Loading b"):  # the socket outlives each
            with saying(listener, words), pytest.raises(urllib.error.HTTPError) as early:
                DIRECT.open(address(listener), timeout=60)
            assert early.value.code == 503
            assert int(early.value.headers["Refresh"]) > 0
            assert words.replace("<b>a</b>", "&lt;b&gt;a&lt;/b&gt;") in early.value.read().decode()
