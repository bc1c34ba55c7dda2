"""`lightning-sal demo`: what it refuses, and that it serves until it is interrupted."""

import os
import re
import signal
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from lightning_sal.cli import main
from lightning_sal.commands import demo

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What the command sets for the page's libraries is undone."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")


def refused(*words):
    """The exit code of a call that must not get as far as a model."""
    return main(["demo", "--model", "there is no such model", *words])


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert refused() == 2
    assert re.fullmatch(
        r"lightning: error: the page needs gradio: (uv )?pip install 'gradio\S*'\n", capsys.readouterr().err
    )


def test_a_model_is_not_compared_with_itself(capsys):
    assert main(["demo", "--model", "a", "--compare", "a"]) == 2
    assert capsys.readouterr().err == "lightning: error: --compare a is the model itself: name another\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-images", "0"], "--max-images is 0: give 1 or more"),
        (["--port", "70000"], "--port 70000: ports go from 0 to 65535"),
    ],
)
def test_values_that_cannot_be_are_one_line(words, message, capsys):
    pytest.importorskip("gradio", reason="the page needs the extra demo")
    assert refused(*words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_taken_port_and_an_open_host_are_told_before_any_model_loads(monkeypatch, capsys):
    pytest.importorskip("gradio", reason="the page needs the extra demo")
    from lightning_sal.demo import listening

    with listening.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert refused("--port", str(port)) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--port {port} of --host 127.0.0.1: taken" in line
    monkeypatch.setattr(listening, "is_loopback", lambda _: False)
    assert refused("--port", "0") == 1
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: anyone who reaches http://127.0.0.1:")
    assert "there is no such model" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_line_before_the_page_is_made(monkeypatch, capsys):
    pytest.importorskip("gradio", reason="the page needs the extra demo")
    assert refused("--port", "0", "--device", "cuda") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "lightning: error: --device cuda: this machine has no GPU; cpu works"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_page_is_served_until_a_signal_and_leaves_nothing_behind(monkeypatch, capsys, number, code):
    gradio = pytest.importorskip("gradio", reason="the page needs the extra demo")
    import uvicorn

    seen = {}

    def look(port):
        for _ in range(300):
            try:
                with DIRECT.open(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    seen["page"] = answer.read().decode()
                    break
            except OSError:
                time.sleep(0.1)
        seen["uploads"] = Path(gradio.utils.get_upload_folder())
        (seen["uploads"] / "photograph.png").write_bytes(b"anything")
        os.kill(os.getpid(), number)

    def run(server, sockets):
        threading.Thread(target=look, args=(sockets[0].getsockname()[1],), daemon=True).start()
        serve(server, sockets)

    serve = uvicorn.Server.run
    monkeypatch.setattr(uvicorn.Server, "run", run)
    former = signal.getsignal(number)
    assert main(["demo", "--port", "0", "--device", "cpu"]) == code
    assert signal.getsignal(number) is former
    assert "What stands out?" in seen["page"]
    assert not seen["uploads"].exists()
    loading, page = capsys.readouterr().out.splitlines()
    assert loading == "Loading tiny and the embedded segmenter ..."
    assert page.startswith("The page is at http://127.0.0.1:")
