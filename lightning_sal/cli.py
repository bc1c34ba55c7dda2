"""The `lightning` command: LightningCLI for fit, validate, test, predict; the modules of `lightning_sal.commands`.

Nothing heavy is imported before it must be, and what the user got wrong is answered by one line.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import lightning_sal
from lightning_sal.commands import available
from lightning_sal.errors import TERMINATED, Terminated, UsageError, printable
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
UNKNOWN_KEYS = (
    re.compile("Group '(.+)' does not accept option '(.+)'"),
    re.compile("Subcommand '.+' does not accept option '(.+)'"),
    re.compile("Option '(.+)' is not accepted"),
    re.compile(r"unrecognized arguments: --([^\s=]+)"),
)
EXPECTED = re.compile(r"Expected an? .+?\. Got value: (?P<given>.*)")
EXPECTED_TYPE = re.compile(r"Expected an? (?:<class '(?:\w+\.)*|typing\.)?(.+?)(?:'>)?(?=\. Got value|$)", re.MULTILINE)
SUBCLASS = re.compile(r".*(?:subclass of|protocol) (?P<base>\w+)\. Got value: (?P<given>.*) Subclass types expect")
REQUIRED = re.compile(r"the following arguments are required: (?P<keys>(?P<command>\w+\.).+)")


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
        return _complain(f"{_one_line(error)} (LIGHTNING_SAL_TRACEBACK=1 shows the traceback)", 1)


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
        hint = _did_you_mean(argv[0], known) or f"; known are {', '.join(known)}"
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

    from lightning_sal.errors import runtime_error_line
    from lightning_sal.paths import Paths
    from lightning_sal.resuming import go_on, require_file

    class Parser(LightningArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> Any:
            """Keep the keys that this parser knows, which is the innermost one, for `_explain`."""
            ex = ex or ValueError(message)
            known = getattr(ex, "subcommand_parser", self)
            ex.known_keys = [action.dest for action in known._actions]  # type: ignore[attr-defined]
            super().error(message, ex)

    class CLI(LightningCLI):
        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_class_arguments(Paths, "paths")

        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            self.config = parser.parse_args(args)
            command = self.config[self.config.subcommand]
            if command.ckpt_path and self.config.subcommand == "fit":
                self.save_config_kwargs["config_filename"] = go_on(command)
            elif command.ckpt_path:
                require_file(command.ckpt_path)

        def instantiate_classes(self) -> None:
            try:
                super().instantiate_classes()
            except ValueError as error:
                raised = _raised_by_class(error)
                raise raised from raised.__cause__

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
        raise UsageError(_explain(error, places)) from error
    except OmegaConfBaseException as error:
        key = _plain((error.full_key or "").partition(".")[2])  # without the command
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
        The arguments with the paths of the files; and where each key is set last, as `_plain` key, and key=value, ->
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
            places[_plain(option[2:])] = "command line: "
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
    raise UsageError(f"config file {name} does not exist{_did_you_mean(name, packaged)}")


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
                    raise UsageError(f"{place}{_plain(str(key.value))} is there twice, or no key at all")
                seen.add(key.value)
                name = _plain(f"{prefix}.{key.value}")
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


def _plain(key: str) -> str:
    """A dotted key without what jsonargparse leaves out of it in its messages."""
    return ".".join(part for part in key.rstrip("+").split(".") if part not in ("", "init_args", "dict_kwargs"))


def _explain(error: BaseException, places: dict[str, str]) -> str:
    """One line for what jsonargparse says in many: file and line, key, what was given, what is allowed."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    links = dict.fromkeys(str(link) for link in chain if not isinstance(link, argparse.ArgumentError))
    key = ".".join(match[1] for link in links if (match := re.match('Parser key "(.+?)":\n', link)))
    root, problem, given = chain[-1], _one_line(chain[-1]), ""
    if match := next(filter(None, (pattern.match(problem) for pattern in UNKNOWN_KEYS)), None):
        unknown, problem = _unknown_key(".".join(match.groups()), root)
        key = f"{key}.{unknown}"
    elif match := EXPECTED.match(problem):
        given = match["given"]
        allowed = " or ".join(dict.fromkeys(EXPECTED_TYPE.findall(str(chain[-2]))))  # of a union, all its types
        problem = f"expected {allowed.replace('NoneType', 'null')}, got {given!r}"
    elif match := SUBCLASS.match(problem):
        problem = f"expected class_path and init_args of a {match['base']}, got {shorten(match['given'], 80)}"
    elif match := REQUIRED.match(problem):
        problem = f"no {match['keys'].replace(match['command'], '')} given: put them in a file, --config FILE"
    elif isinstance(root, AttributeError):
        key, given = f"{key}.class_path", f"{getattr(root.obj, '__name__', '')}.{root.name}"
        problem += _did_you_mean(root.name or "", dir(root.obj))
    elif isinstance(root, ImportError):
        key = f"{key}.class_path"
    problem = re.sub('^Parser key ".+?": ', "", problem)
    key = _plain(key)
    place = places.get(f"{key}={given}") or places.get(key, "")
    return f"{place}{key}{': ' if key else ''}{problem}"


def _raised_by_class(error: BaseException) -> BaseException:
    """What a constructor raised, out of the lines that jsonargparse wraps around it."""
    wrappers = ("Does not validate against", "Problem with given", "Parser key")
    if not str(error).startswith(wrappers):
        return error
    inner = _raised_by_class(error.__cause__) if error.__cause__ else error
    if inner is not error and not str(inner).startswith("Expected a"):
        return inner
    # Of a union only what its first type said is chained, which may be a plain value; the text has all.
    told = re.findall(r"^ +- (?!Expected an? |Does not validate)(.+)", str(error), re.MULTILINE)
    return ValueError(told[0]) if told else inner


def _unknown_key(key: str, error: BaseException) -> tuple[str, str]:
    """The key as far as its first unknown part, and what is known there."""
    known = [name for name in getattr(error, "known_keys", []) if name not in ("help", "config", "print_config")]
    parent = ""
    for part in _plain(key).split("."):
        there = {name.removeprefix(parent).partition(".")[0] for name in known if name.startswith(parent)}
        if part not in there:
            known_there = (
                f"; known are {', '.join(sorted(there))}" if there else "; a class is given by class_path and init_args"
            )
            return f"{parent}{part}", f"unknown key{_did_you_mean(part, there) or known_there}"
        parent += f"{part}."
    return key, "unknown key"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    matches = get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip()
    if text.startswith("Caught ") and "Original Traceback" in text:  # from a worker of a DataLoader
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


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
