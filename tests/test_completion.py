"""What the Tab key completes, asked as argcomplete's shell code asks, and without a shell."""

import os
import subprocess
import sys

import pytest


def completions(line: str, tmp_path) -> list[str]:
    answer = tmp_path / "answer"
    shell = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    code = (
        "import atexit, os, sys\nfrom lightning_sal.cli import main\n"
        "leave = os._exit\n"
        "os._exit = lambda code: leave(9 if {'torch', 'numpy', 'lightning'} & set(sys.modules) else code)\n"
        "main()"
    )
    environment = os.environ | shell | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    return [word.strip() for word in answer.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lightning-sal seg", ["segment"]),
        ("lightning-sal segment --ta", ["--task"]),
        ("lightning f", ["fit"]),
        ("lightning-sal segment --dtype b", ["bfloat16"]),
        ("lightning fit --conf", ["--config"]),
    ],
)
def test_commands_and_options(tmp_path, line, expected):
    assert completions(line, tmp_path) == expected


def test_configs_are_those_of_the_package_and_those_that_are_here(tmp_path):
    (tmp_path / "mine.yaml").touch()
    assert completions("lightning fit --config mi", tmp_path) == ["mine.yaml"]
    found = completions("lightning fit --config conf/qu", tmp_path)
    assert "conf/quickstart.yaml" in found
    assert all(name.startswith("conf/qu") for name in found)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_installing_twice_changes_a_start_file_once(tmp_path, monkeypatch, capsys, shell):
    from lightning_sal.cli import main

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    start = tmp_path / f".{shell}rc"
    start.write_text("alias a=b\n")
    for _ in range(2):
        assert main(["--install-completion"]) == 0
        assert str(start) in capsys.readouterr().out
    lines = start.read_text().splitlines()
    assert lines[0] == "alias a=b"
    assert len([line for line in lines if "lightning-sal" in line]) == 1
    script = (tmp_path / f".local/share/lightning-sal/completion.{shell}").read_text()
    assert "lightning-sal" in script


def test_another_shell_is_one_line(monkeypatch, capsys):
    from lightning_sal.cli import main

    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert main(["--install-completion"]) == 2
    assert capsys.readouterr().err == ("lightning: error: completion is there for bash and zsh, and SHELL names tcsh\n")
