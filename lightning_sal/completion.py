"""What the Tab key completes: commands, their options, files and configs, by argcomplete; nothing heavy loads for it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_sal.commands import available
from lightning_sal.configs.places import CONFIG_OPTIONS, PACKAGE
from lightning_sal.errors import UsageError

PROGRAMS = ["lightning", "lightning-sal"]
SHELLS = {"bash": "~/.bashrc", "zsh": "~/.zshrc"}  # shell -> what it reads when it starts
_BEFORE = {"zsh": "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"}


def complete(trainer_commands: Mapping[str, str]) -> None:
    """Answer the shell and end the process, where it is the shell that asks for completions.

    Args:
        trainer_commands: Command of the Trainer -> its line in the help.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        words = os.environ.get("COMP_LINE", "").split()
        argcomplete.autocomplete(_parser(trainer_commands, words[1] if len(words) > 1 else ""))


def install() -> str:
    """Let the user's shell complete from its next start on.

    Returns:
        What was written where, in a line.

    Raises:
        UsageError: Completion is there for other shells alone.
    """
    from argcomplete.shell_integration import shellcode

    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise UsageError(f"completion is there for {' and '.join(SHELLS)}, and SHELL names {shell or 'none'}")
    script = (
        Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / f"lightning-sal/completion.{shell}"
    )
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_BEFORE.get(shell, "") + shellcode(PROGRAMS, shell=shell))
    start, line = Path(SHELLS[shell]).expanduser(), f". '{script}'  # lightning-sal: completion\n"
    if not start.is_file() or line not in start.read_text():
        with start.open("a") as file:
            file.write(f"\n{line}")
    return f"Tab completes {' and '.join(PROGRAMS)} in every new {shell}: {script}, which {start} reads"


def _parser(trainer_commands: Mapping[str, str], word: str) -> argparse.ArgumentParser:
    """The parser of the whole program, the options of one command in it."""
    parser = argparse.ArgumentParser(prog="lightning")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--install-completion", action="store_true")
    commands = parser.add_subparsers()
    for name, line in trainer_commands.items():
        options = commands.add_parser(name, help=line)
        _completed_by(options.add_argument(*CONFIG_OPTIONS), _configs)
        for option in ("--ckpt_path", "--print_config", "--model.help", "--data.help"):
            options.add_argument(option)
    for name, module in available().items():
        own = [_parser_of(module)] if name == word else []
        options = commands.add_parser(
            name, help=module.__doc__, parents=own, add_help=not own, conflict_handler="resolve"
        )
        for action in options._actions:
            if "--config" in action.option_strings:
                _completed_by(action, _configs)
    return parser


def _completed_by(action: Any, completer: Any) -> None:
    action.completer = completer


def _configs(prefix: str, **_: Any) -> Iterator[str]:
    """Config files: those that are here, and those of the package."""
    from argcomplete.completers import FilesCompleter

    packaged = [path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "conf").rglob("*.yaml")]
    yield from dict.fromkeys([*FilesCompleter(("yaml", "yml"))(prefix), *sorted(packaged)])


class _Parsed(BaseException):
    """Carries the parser of a command, instead of what it would parse."""


def _parser_of(module: Any) -> argparse.ArgumentParser:
    """The parser that a command makes before it does anything else."""

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Parsed(parser)

    from unittest.mock import patch  # a tenth of a second

    with patch.object(argparse.ArgumentParser, "parse_known_args", stop):
        try:
            module.main([])
        except _Parsed as stopped:
            return stopped.args[0]
    sys.exit(0)  # a command without a parser has no options
