"""Exported models on a hub: on loopback, as the hub's own library speaks to it."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from safetensors.torch import load

from lightning_sal.evaluation.results import Results, write_summary
from tests.commands.hub_server import serving
from tests.commands.test_export import export, run  # noqa: F401  a fixture


@pytest.fixture
def hub(monkeypatch):
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is not played here: files go as LFS
        monkeypatch.setenv("HF_TOKEN", "secret")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def test_the_hub_holds_the_folder_and_a_card_of_the_run(run, hub, tmp_path, capsys):  # noqa: F811
    results = tmp_path / "results"
    results.mkdir()
    write_summary(Results("ours", {"ECSSD": "sod"}, {"ECSSD": {"s_measure": 0.8128}}), results)
    out = tmp_path / "exported"
    assert export(run.adapter, "--out", out, "--results", results, "--push", "me/shoes", "--private") == 0
    assert f"Sent to {hub.url}/me/shoes" in capsys.readouterr().out
    (name, repository), *others = hub.repositories.items()
    assert (name, repository["private"], others) == ("me/shoes", True, [])
    files = repository["files"]
    assert files.keys() == {path.name for path in out.iterdir()}
    assert all(content == (out / name).read_bytes() for name, content in files.items())
    assert load(files["model.safetensors"])
    head, _, text = files["README.md"].decode().removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(head)["tags"] == ["lightning-sal", "visual-saliency", "sod"]
    for line in ("# shoes", "--model me/shoes", "| module | lightning_sal.modules.SFT |", "| learning rate | 0.01 |"):
        assert line in text
    assert "| ours | 0.813 |" in text
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text


def test_a_second_push_is_one_more_commit(run, hub, tmp_path):  # noqa: F811
    hub.repositories["me/shoes"] = {"private": False, "files": {"notes.txt": b"mine"}}
    assert export(run.adapter, "--out", tmp_path / "exported", "--push", "me/shoes") == 0
    files = hub.repositories["me/shoes"]["files"]
    assert files["notes.txt"] == b"mine"
    assert json.loads(files["config.json"])


@pytest.mark.parametrize(
    ("token", "name", "line"),
    [("wrong", "me/shoes", "me/shoes: the hub answers 401: log in by `hf auth login`"), ("secret", "a/b/c", "no name")],
)
def test_what_the_hub_refuses_is_one_line_before_any_work(run, hub, tmp_path, monkeypatch, capsys, token, name, line):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", token)
    assert export(run.adapter, "--out", tmp_path / "exported", "--push", name) == 1
    (complaint,) = capsys.readouterr().err.splitlines()
    assert line in complaint
    assert not (tmp_path / "exported").exists()


def test_a_hub_that_is_away_is_one_line(run, hub, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert export(run.adapter, "--out", tmp_path / "exported", "--push", "me/shoes") == 1
    (complaint,) = capsys.readouterr().err.splitlines()
    assert "me/shoes: the hub cannot be reached" in complaint
