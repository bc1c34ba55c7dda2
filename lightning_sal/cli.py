"""The `lightning` command: fit, validate, test, predict on configs; the modules of `lightning_sal.commands`.

Nothing heavy is imported before it must be, and what the user got wrong is answered by one line.
"""

from __future__ import annotations

import io
import os
import sys
from importlib import metadata

import lightning_sal
from lightning_sal.commands import available
from lightning_sal.completion import complete, install
from lightning_sal.configs.running import run
from lightning_sal.errors import INTERRUPTED, TERMINATED, Terminated, UsageError, one_line, printable
from lightning_sal.internals.notices import silence
from lightning_sal.internals.parser import did_you_mean
from lightning_sal.internals.shell import installing, lacking
from lightning_sal.internals.signals import ended_by_signals, heard

TRAINER_COMMANDS = {
    "fit": "train what the config describes",
    "validate": "evaluate on the validation data",
    "test": "evaluate on the test data",
    "predict": "answer for new images and write what comes out",
}

HELP = """\
usage: lightning COMMAND [options]

{summary}

With a config file, whose every key is also an option (`lightning fit --help` explains them):
{trainer}

Others (`lightning COMMAND --help`):
{others}

  lightning fit --config conf/quickstart.yaml
  lightning fit --config a.yaml --config b.yaml --trainer.max_steps 100    later ones win
  lightning fit --config conf/quickstart.yaml --print_config               every key and its value
  lightning fit --model.help lightning_sal.modules.CGPO                    what a class takes
  lightning --version
  lightning --install-completion                                           Tab completes commands and options

LIGHTNING_SAL_TRACEBACK=1 in the environment shows where an error came from.\
"""

_MENDABLE = UsageError, ValueError, OSError, MemoryError, RecursionError  # by who typed the command


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit code: 0, 1 where a run failed, 2 where what was asked cannot be run, 130 after Ctrl-C, 143 after SIGTERM.
    """
    complete(TRAINER_COMMANDS)
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file may be in any encoding
    try:
        with ended_by_signals():
            code = _dispatch(argv)
        return _ended(TERMINATED) if heard() == TERMINATED else code  # a server ends in peace
    except KeyboardInterrupt as error:
        return _ended(TERMINATED if isinstance(error, Terminated) else heard() or INTERRUPTED)
    except Exception as error:
        signal = heard()
        if signal is None:
            return _answer(error)
        return _ended(signal)  # a library made another error of it, as an import does


def _ended(code: int) -> int:
    start = "\r" if sys.stderr.isatty() else ""  # over the ^C that a terminal writes
    print(f"{start}lightning: {'terminated' if code == TERMINATED else 'interrupted'}", file=sys.stderr)
    return code


def _answer(error: Exception) -> int:
    """Say in one line what the user can mend; anything else is a bug, and is raised."""
    if isinstance(error, ModuleNotFoundError) and lacking("train"):
        return _complain(f"{error.name} is not installed, which this command needs: {installing('train')}", 2)
    if not isinstance(error, _MENDABLE) or os.environ.get("LIGHTNING_SAL_TRACEBACK") == "1":
        raise error
    if isinstance(error, UsageError):
        return _complain(str(error), 2)
    return _complain(f"{one_line(error)} (LIGHTNING_SAL_TRACEBACK=1 shows the traceback)", 1)


def _dispatch(argv: list[str]) -> int:
    word = argv[0] if argv else "--help"
    if word == "--version":
        print(f"lightning-sal {lightning_sal.__version__}")
        return 0
    if word == "--install-completion":
        print(install())
        return 0
    silence()
    if word in TRAINER_COMMANDS:
        if lacking("train"):
            raise UsageError(f"lightning {word} needs packages that are not installed here: {installing('train')}")
        return run(argv)
    commands = available()
    if word in ("-h", "--help"):
        others = {name: (module.__doc__ or "").partition("\n")[0] for name, module in commands.items()}
        print(HELP.format(summary=lightning_sal.__doc__, trainer=_table(TRAINER_COMMANDS), others=_table(others)))
        return 0
    if word in commands:
        return commands[word].main(argv[1:])
    if word.startswith("-"):
        raise UsageError(f"unknown option {word!r}: the command comes first, as in lightning fit --config FILE")
    return _hand_over(argv, [*TRAINER_COMMANDS, *commands])


def _table(lines: dict[str, str]) -> str:
    return "\n".join(f"  {name:<12}{line}" for name, line in lines.items())


def _complain(message: str, code: int) -> int:
    print(f"lightning: error: {printable(message)}", file=sys.stderr)
    return code


def _hand_over(argv: list[str], known: list[str]) -> int:
    """Run the `lightning` script of lightning-sdk, whose name we took, for a word that is not ours."""
    try:
        (script,) = metadata.distribution("lightning-sdk").entry_points.select(
            group="console_scripts", name="lightning"
        )
    except metadata.PackageNotFoundError:
        hint = did_you_mean(argv[0], known) or f"; known are {', '.join(known)}"
        raise UsageError(f"unknown command {argv[0]!r}{hint}") from None
    sys.argv[1:] = argv
    return int(script.load()() or 0)
