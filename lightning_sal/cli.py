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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning_sal
from lightning_sal.commands import available
from lightning_sal.errors import TERMINATED, Terminated, UsageError, one_line, printable, runtime_error_line
from lightning_sal.internals.parser import did_you_mean, explain, keep_known_keys, plain_key, raised_by_class
from lightning_sal.reading import compose_yaml, read_text

if TYPE_CHECKING:
    import yaml

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

CONFIG_OPTIONS = ("-c", "--config")
YAML = (".yaml", ".yml")


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
    argv, places = _read_configs(argv)
    _silence()
    import jsonargparse
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
    from omegaconf.errors import OmegaConfBaseException

    from lightning_sal.paths import Paths
    from lightning_sal.resuming import require_file, resume_from
    from lightning_sal.versions import warn_untested

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


def _read_configs(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Find the config files and check that they are YAML, before anything heavy is imported.

    A file `conf/...` that is not there is taken from the package.

    Returns:
        The arguments with the paths of the files; and where each key is set last, as `plain_key` key, and key=value, ->
        "file:line: ".
    """
    words: list[str] = []
    for word in argv:
        option, equals, value = word.partition("=")
        words += [option, value] if equals and option in CONFIG_OPTIONS else [word]
    places: dict[str, str] = {}
    for at, word in enumerate(words):
        if word in CONFIG_OPTIONS:
            path = find_config(words[at + 1] if at + 1 < len(words) else "")
            words[at + 1] = str(path)
            places.update(_key_places(path))
            continue
        option, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if option:
            places[plain_key(option[2:])] = "command line: "
        if value.endswith(YAML) and at and words[at - 1] not in CONFIG_OPTIONS and Path(value).is_file():
            _compose(Path(value))  # a part of a config, as in --trainer FILE
    return words, places


def find_config(name: str) -> Path:
    package, path = Path(__file__).parent, Path(name)
    if path.is_file():
        return path
    if path.parts[:1] == ("conf",) and (package / path).is_file():
        return package / path
    if not name:
        raise UsageError("--config needs a file")
    packaged = [found.relative_to(package).as_posix() for found in (package / "conf").rglob("*.yaml")]
    raise UsageError(f"config file {name} does not exist{did_you_mean(name, packaged)}")


def _key_places(path: Path, prefix: str = "", within: tuple[Path, ...] = ()) -> dict[str, str]:
    """The places of the keys of a config file and of the files that its values name."""
    import yaml

    places: dict[str, str] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                place = f"{path}:{key.start_mark.line + 1}: "
                if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                    raise UsageError(f"{place}{plain_key(str(key.value))} is there twice, or no key at all")
                seen.add(key.value)
                name = plain_key(f"{prefix}.{key.value}")
                if name != prefix:
                    places[name] = f"{path}: " if name in places else place  # several in a list: which one is unclear
                if isinstance(value, yaml.ScalarNode):
                    places[f"{name}={value.value}"] = place
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                walk(child, prefix)
        elif isinstance(node, yaml.ScalarNode):
            file = path.parent / node.value
            if file.suffix in YAML and file not in (path, *within) and file.is_file():
                places.update(_key_places(file, prefix, (path, *within)))

    root = _compose(path)
    if not prefix and not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}: a config file holds `key: value` lines, and this one holds none")
    walk(root, prefix)
    return places


def _compose(path: Path) -> yaml.Node | None:
    try:
        return compose_yaml(read_text(path), path)
    except ValueError as error:
        raise UsageError(str(error)) from error


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
