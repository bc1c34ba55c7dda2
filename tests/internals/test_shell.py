"""Commands that errors and last lines print can be copied."""

import shlex
import tomllib
from pathlib import Path

from lightning_sal.internals.shell import installing, typed

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_a_command_begins_as_the_user_s_own_did(monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    assert typed("lightning-sal", "segment", Path("my photos")) == "lightning-sal segment 'my photos'"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert typed("lightning-sal", "demo") == "uv run lightning-sal demo"


def test_an_extra_is_installed_by_the_names_of_its_packages(monkeypatch):
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    for extra, needed in tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"].items():
        command = shlex.split(installing(extra))
        assert command[:2] == ["pip", "install"]
        assert {name.partition(">")[0].partition("<")[0] for name in command[2:]} == {
            name.partition(">")[0].partition("<")[0] for name in needed
        }
