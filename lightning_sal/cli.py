"""The `lightning` command: LightningCLI for fit, validate, test, predict; the modules of `lightning_sal.commands`.

Nothing heavy is imported before it must be, and what the user got wrong is answered by one line.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import lightning_sal
from lightning_sal.commands import available
from lightning_sal.configs.places import read_configs
from lightning_sal.errors import TERMINATED, Terminated, UsageError, one_line, printable, runtime_error_line
from lightning_sal.internals.parser import did_you_mean, explain, keep_known_keys, plain_key, raised_by_class

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

LIGHTNING_SAL_TRACEBACK=1 in the environment shows where an error came from.\
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit code: 0, 1 where a run failed, 2 where what was asked cannot be run, 130 after Ctrl-C, 143 after SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file may be in any encoding
    try:
        with _sigterm_as_ctrl_c() as heard:
            code = _dispatch(argv)
        if heard:  # by a server that ends in peace
            raise Terminated
        return code
    except Terminated:
        print("lightning: terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("lightning: interrupted", file=sys.stderr)
        return 130
    except (UsageError, ValueError, OSError, MemoryError, RecursionError) as error:
        if os.environ.get("LIGHTNING_SAL_TRACEBACK") == "1":
            raise
        if isinstance(error, UsageError):
            return _complain(str(error), 2)
        return _complain(f"{one_line(error)} (LIGHTNING_SAL_TRACEBACK=1 shows the traceback)", 1)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[list[int]]:
    """Inside, SIGTERM raises `Terminated`, and reaches the processes that this one has started; gives those heard so far."""
    heard: list[int] = []

    def end(number: int, _: Any) -> None:
        heard.append(number)
        for child in multiprocessing.active_children():
            child.terminate()
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # where no signal can be handled
        yield heard
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(argv: list[str]) -> int:
    word = argv[0] if argv else "--help"
    if word == "--version":
        print(f"lightning-sal {lightning_sal.__version__}")
        return 0
    if word in TRAINER_COMMANDS:
        return _run_trainer(argv)
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


def _run_trainer(argv: list[str]) -> int:
    argv, places = read_configs(argv)
    _silence()
    import jsonargparse
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
    from omegaconf.errors import OmegaConfBaseException

    from lightning_sal.configs.resuming import require_file, resume_from
    from lightning_sal.internals.versions import warn_untested
    from lightning_sal.paths import Paths

    class Parser(LightningArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            ex = ex or ValueError(message)
            keep_known_keys(self, ex)
            super().error(message, ex)

    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_class_arguments(Paths, "paths")

        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            self.config = parser.parse_args(args)
            command = self.config[self.config.subcommand]
            if command.ckpt_path and self.config.subcommand == "fit":
                self.save_config_kwargs["config_filename"] = resume_from(command)
            elif command.ckpt_path:
                require_file(command.ckpt_path)

        def instantiate_classes(self) -> None:
            try:
                super().instantiate_classes()
            except ValueError as error:
                raised = raised_by_class(error)
                raise raised from raised.__cause__

    warn_untested("lightning", "jsonargparse")
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    try:
        CLI(
            L.LightningModule,
            L.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfigCallback if argv[0] == "fit" else None,  # so that predict can be repeated
            seed_everything_default=0,
            auto_configure_optimizers=False,  # the modules make their own, from the parameters that are trained
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": "lightning", "exit_on_error": False},
            args=argv,
        )
    except argparse.ArgumentError as error:
        raise UsageError(explain(error, places)) from error
    except OmegaConfBaseException as error:
        key = plain_key((error.full_key or "").partition(".")[2])  # without the command
        raise UsageError(f"{places.get(key, '')}{key}: {str(error).partition(chr(10))[0]}") from error
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if (line := runtime_error_line(error)) is None:
            raise
        raise ValueError(line) from error
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning tidies up, then exits with 1
            raise type(stop.__context__) from None
        if stop.code == TERMINATED:
            return TERMINATED
        raise
    return 0


def _silence() -> None:
    """Keep notices off the screen that no user of this command can act on; all other warnings stay."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module=r"lightning\.pytorch\..*_pytree")
    # The new names are not in every version of transformers that is taken here.
    warnings.filterwarnings("ignore", message=r"`(is_)?gradient_checkpointing\w*` is deprecated")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not an advertisement, nor the notice of a Ctrl-C that `main` reports itself."""
    return not record.getMessage().lstrip().startswith(("💡 Tip: For seamless", "Detected KeyboardInterrupt"))
