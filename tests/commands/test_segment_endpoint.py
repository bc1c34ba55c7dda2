"""`lightning-sal segment`, `demo` and `explain` with a model behind an endpoint, which a server on loopback plays."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from lightning_sal.cli import main
from tests.annotation.parts import photograph, save
from tests.annotation.server import Model, Server

KEY = "sk-very-secret-0123456789"
SAID = "<think>A square.</think><answer><rg>yellow square</rg></answer>"
PRICES = ["--price-in", "2", "--price-out", "8"]


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Photographs 0 to 3, by name."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        save(tmp_path / f"photos/{number}.png", photograph(number))
    return tmp_path / "photos"


@pytest.fixture
def server():
    with Server(Model(answer=lambda *_: SAID)) as model:
        yield model


def segment(server, *more, model="openai:some-model"):
    return main(["segment", "photos", "--model", model, "--base-url", server.url, "--device", "cpu", *more])


def lines(folder="runs/segment"):
    return [json.loads(line) for line in (Path(folder) / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("model", ["openai:some-model", "gemini:some-model"])
def test_a_folder_is_answered_by_a_model_that_is_named_with_what_it_took(server, capsys, model):
    assert segment(server, *PRICES, model=model) == 0
    out, err = capsys.readouterr()
    assert "some-model: 4 answers, 0 of them kept" in out
    assert "4 requests; 2,800 tokens in, 600 out, $0.0104" in out
    assert "4 of 4 answered: open runs/segment/index.html" in out
    assert "Embedded segmenter" in out  # the model is real, and what draws its masks is not
    found = sorted(lines(), key=lambda line: line["images"])
    assert [line["images"] for line in found] == [[f"photos/{number}.png"] for number in range(4)]
    assert {line["response"] for line in found} == {SAID}
    assert {line["confidence"] for line in found} == {None}
    page = Path("runs/segment/index.html").read_text()
    assert model in page
    assert page.count("<article") == 4
    assert 'class="confidence"' not in page
    written = "".join(path.read_text(errors="replace") for path in Path("runs").rglob("*") if path.is_file())
    assert KEY not in out + err + written


@pytest.mark.usefixtures("photos")
def test_a_second_run_asks_for_nothing_and_a_new_photograph_alone_is_asked_about(server, capsys):
    assert segment(server) == 0
    shutil.rmtree("runs/segment")
    assert segment(server) == 0
    out = capsys.readouterr().out.rpartition("some-model: ")[2]
    assert out.startswith("4 answers, 4 of them kept from before")
    assert "; 0 requests" in out
    save(Path("photos/9.png"), photograph(9))
    assert segment(server) == 0
    assert [len(server.about(number)) for number in (0, 1, 2, 3, 9)] == [1] * 5
    assert len(lines()) == 5


@pytest.fixture
def heeds_ctrl_c():
    """Which a shell's background ignores, and so its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("photos", "heeds_ctrl_c")
def test_after_an_interrupt_what_was_answered_is_not_asked_again(server):
    server.at_request(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    server.deeds = {2: ["hang", "ok"]}  # the third is under way when the signal comes
    assert segment(server, "--batch-size", "1") == 130
    assert len(lines()) == 2
    assert segment(server, "--batch-size", "1") == 0
    assert len(lines()) == 4
    assert [len(server.about(number)) for number in range(4)] == [1, 1, 2, 1]


@pytest.mark.usefixtures("photos")
def test_instances_and_groups_are_answered_without_a_confidence(server):
    server.answer = lambda *_: "<think>Two.</think><answer><ins>left</ins><ins>right</ins></answer>"
    assert segment(server, "--task", "sis", "--out", "runs/sis") == 0
    assert {tuple(line["expressions"]) for line in lines("runs/sis")} == {("left", "right")}
    found = json.loads(Path("runs/sis/instances.json").read_text())
    assert len(found["images"]) == 4
    assert len(found["annotations"]) <= 8  # the embedded segmenter knows no photographs, and may find nothing
    server.answer = lambda *_: "<think>All.</think><answer><rg>[semantic] square</rg></answer>"
    assert segment(server, "--task", "cosod", "--out", "runs/cosod") == 0
    (line,) = lines("runs/cosod")
    assert len(line["masks"]) == len(server.log[-1].images) == 4


@pytest.mark.usefixtures("photos")
def test_photographs_that_are_refused_are_named_and_the_rest_is_done(server, capsys):
    server.deeds = {0: ["refusal"], 2: ["bad request"]}
    assert segment(server) == 1
    out, err = capsys.readouterr()
    first, second = re.findall(r"^not answered: (.+)$", err, re.MULTILINE)
    assert first == "photos/0.png: refused: I will not."
    assert second.startswith("photos/2.png: refused: ")
    assert "this image is not allowed" in second
    assert "2 of 4 answered" in out
    assert [line["images"] for line in lines()] == [["photos/1.png"], ["photos/3.png"]]
    assert Path("runs/segment/index.html").read_text().count("refused: ") == 2
    server.deeds = {}
    assert segment(server) == 1  # the model's own refusal is an answer, which is kept
    assert "3 of 4 answered" in capsys.readouterr().out


@pytest.mark.usefixtures("photos")
def test_a_model_that_answers_no_more_is_one_line_and_the_same_command_goes_on(server, capsys):
    budget = [*PRICES, "--budget", "0.018", "--batch-size", "1", "--max-new-tokens", "1000"]
    assert segment(server, *budget) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert "the budget of $0.018 allows no further request" in line
    assert "goes on from there" in line
    spent = float(re.search(r"out, \$([\d.]+)", out)[1])
    assert 0 < spent <= 0.018
    assert 0 < len(lines()) < 4
    assert Path("runs/segment/index.html").read_text().count("<article") == len(lines())
    assert segment(server, *PRICES, "--max-new-tokens", "1000") == 0
    assert len(lines()) == Path("runs/segment/index.html").read_text().count("<article") == 4
    assert len(server.log) == 4


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--maps"], "--maps needs the weights of a model, and openai:some-model is behind an endpoint: leave it out"),
        (
            ["--dtype", "bfloat16"],
            "--dtype is of a model that is loaded here, and openai:some-model is none: leave it out",
        ),
        (["--budget", "1"], "--budget needs --price-in and --price-out, dollars a million tokens"),
        (["--price-in", "1"], "give both --price-in and --price-out, dollars a million tokens, or neither"),
        (["--model", "tiny"], "--base-url is of a model behind an endpoint, and tiny is none: leave it out"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(server, capsys, words, line):
    assert segment(server, *words) == 2
    assert capsys.readouterr().err == f"lightning: error: {line}\n"
    assert not server.log


@pytest.mark.usefixtures("photos")
def test_without_a_key_or_a_server_one_line_says_so(server, capsys, monkeypatch):
    assert main(["segment", "photos", "--model", "openai:m", "--base-url", "http://127.0.0.1:9"]) == 2
    assert "error: m: nothing answers at http://127.0.0.1:9: " in capsys.readouterr().err
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    assert segment(server, "--out", "runs/other", model="gemini:m") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("no key: put it into the environment variable GEMINI_API_KEY or GOOGLE_API_KEY")


@pytest.mark.parametrize("words", [["segment", "--maps"], ["explain"]])
def test_maps_of_a_model_on_the_general_path_are_refused_before_its_weights_are_read(photos, capsys, words):
    Path("other").mkdir()
    Path("other/config.json").write_text('{"model_type": "smolvlm"}')  # there is nothing else of it
    command, *options = words
    assert main([command, "photos", "--model", "other", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "policy model 'other' is a smolvlm on the general path" in line
    assert "attribution needs" in line


@pytest.mark.usefixtures("photos")
def test_maps_of_a_model_without_weights_here_are_refused_before_any_work(capsys):
    assert main(["explain", "photos", "--model", "openai:m"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "openai:m cannot be explained, since that needs its weights" in line
    assert "--responses" in line
