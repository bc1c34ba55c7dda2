"""A hub that cannot be reached is told at once, and what was downloaded before is taken."""

import http.server
import threading

import pytest

from lightning_sal.internals import hub

NOBODY = "http://127.0.0.1:9"  # the port of a service that nobody runs


@pytest.fixture
def at(monkeypatch):
    """Sets the address of the hub, and whether a model was downloaded before."""

    def place(address: str, cached: bool, offline: bool = False) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "config.json" if cached else None)
        hub._unreachable.cache_clear()

    yield place
    hub._unreachable.cache_clear()


def test_an_unreachable_hub_is_one_line_with_what_helps(at):
    at(NOBODY, cached=False)
    with pytest.raises(OSError, match=r"owner/name: the hub, http://127.0.0.1:9, cannot be reached") as error:
        hub.require_hub("owner/name")
    for help in ("HF_HUB_OFFLINE=1", "HF_ENDPOINT", "local folder"):
        assert help in str(error.value)
    assert "\n" not in str(error.value)


def test_what_was_downloaded_before_is_taken_without_asking_again(at):
    from huggingface_hub import constants

    at(NOBODY, cached=True)
    with pytest.warns(UserWarning, match="owner/name is taken as it was downloaded before"):
        hub.require_hub("owner/name")
    assert constants.is_offline_mode()


def test_offline_says_where_it_was_looked_for(at):
    at(NOBODY, cached=False, offline=True)
    with pytest.raises(OSError, match=r"owner/name was not downloaded to .*, and HF_HUB_OFFLINE forbids it"):
        hub.require_hub("owner/name")
    at(NOBODY, cached=True, offline=True)
    hub.require_hub("owner/name")


def test_any_answer_is_one(at):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at(f"http://127.0.0.1:{server.server_port}", cached=False)  # 501: it knows no HEAD
        hub.require_hub("owner/name")
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("owner/Model-2.5-VL-7B", True),
        ("tiny", False),
        ("a/b/c", False),
        ("./a", False),
        ("x/sam.pt", False),
        ("o/a b", False),
    ],
)
def test_names_of_the_hub(name, is_one):
    assert hub.is_hub_name(name) is is_one
