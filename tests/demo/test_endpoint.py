"""The page with a model behind an endpoint, which a server on loopback plays."""

import json

import pytest

pytest.importorskip("gradio", reason="the page needs the extra demo")
import gradio as gr
from starlette.requests import Request

from lightning_sal import load_predictor
from lightning_sal.cli import main
from lightning_sal.demo.clicks import Clicks
from lightning_sal.demo.page import build
from lightning_sal.demo.side_by_side import stream
from lightning_sal.demo.visitors import Visitors
from tests.annotation.parts import photograph, save
from tests.annotation.server import Model, Server
from tests.demo.parts import Says
from tests.demo.serving import BOUNDS
from tests.demo.test_side_by_side import group

KEY = "sk-very-secret-0123456789"
SAID = "<think>A square.</think><answer><rg>yellow square</rg></answer>"
WHY = "openai:m cannot say where each word came from: that needs its weights"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    with Server(Model(answer=lambda *_: SAID)) as model:
        yield model


@pytest.fixture
def predictor(server):
    return load_predictor("openai:m", device="cpu", base_url=server.url, retries=0)


def shown(predictors, note=""):
    """What the page is made of, and the box that asks for explanations."""
    components = build(predictors, BOUNDS, Visitors(), note).get_config_file()["components"]
    (box,) = [each["props"] for each in components if each["type"] == "checkbox"]
    return json.dumps(components), box


def test_what_cannot_be_shown_is_absent_and_a_line_says_why(predictor, server):
    page, box = shown({"openai:m": predictor}, predictor.notice)
    assert not box["visible"]
    assert page.count(WHY) == 1
    assert f"What you upload leaves this machine: it is sent to {server.url}, for m to answer" in page
    assert KEY not in page
    beside, box = shown({"openai:m": predictor, "says": Says("a")})
    assert box["visible"]
    assert WHY in beside
    alone, box = shown({"says": Says("a")})
    assert box["visible"]
    assert "needs its weights" not in alone


def test_beside_a_model_that_explains_it_answers_without(predictor):
    says = Says("a")
    *_, (_, found) = stream({"openai:m": predictor, "says": says}, group(size=(40, 60)), explained=True)
    assert says.asked == ("", True)
    assert (found["openai:m"].text, found["openai:m"].explanation) == (SAID, None)


def click(predictor, tmp_path):
    save(tmp_path / "1.png", photograph(1))
    request = gr.Request(Request({"type": "http", "headers": []}))
    return list(
        Clicks({"openai:m": predictor}, BOUNDS, Visitors()).run([str(tmp_path / "1.png")], "sod", "", False, request)
    )


def test_a_photograph_is_answered_on_the_page(predictor, tmp_path):
    answers = [shown for shown, *_ in click(predictor, tmp_path) if isinstance(shown, str) and shown]
    assert "yellow square" in answers[-1]
    assert 'class="confidence"' not in answers[-1]


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("refusal", "1.png: refused: I will not."),
        ("echo", "The model cannot be asked any further; whoever runs this page reads why."),
    ],
)
def test_a_visitor_reads_that_there_is_no_answer_and_no_key(server, predictor, tmp_path, capsys, deed, told):
    server.deeds = {1: [deed]}
    with pytest.raises(gr.Error) as error:
        click(predictor, tmp_path)
    assert error.value.message == told
    assert KEY not in capsys.readouterr().err


def test_a_missing_key_ends_the_command_before_there_is_a_page(server, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    assert main(["demo", "--model", "openai:m", "--port", "0", "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert err.endswith("no key: put it into the environment variable OPENAI_API_KEY\n")
    assert "The page is at" not in out
