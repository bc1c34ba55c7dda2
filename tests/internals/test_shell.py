"""Commands that errors and last lines print can be copied."""

import re
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

    def names(requirements):
        return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}

    for extra, needed in tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"].items():
        program, verb, *packages = shlex.split(installing(extra))
        assert (program, verb, names(packages)) == ("pip", "install", names(needed))
