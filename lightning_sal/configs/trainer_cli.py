"""LightningCLI as it reads our configs, and its complaints as one line each. Importing it takes seconds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pydoc import locate
from typing import Any

import jsonargparse
import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from omegaconf.errors import OmegaConfBaseException

from lightning_sal.configs.ending import show_ending
from lightning_sal.configs.resuming import require_file, resume_from
from lightning_sal.errors import TERMINATED, UsageError, runtime_error_line
from lightning_sal.internals.activity import doing
from lightning_sal.internals.parser import (
    explain,
    keep_known_keys,
    keep_settings_by_name,
    plain_key,
    raised_by_class,
)
from lightning_sal.internals.signals import next_ends_at_once
from lightning_sal.internals.versions import warn_untested
from lightning_sal.paths import Paths

_BAR = "lightning_sal.callbacks.RolloutProgressBar"


class _Parser(LightningArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> Any:
        ex = ex or ValueError(message)
        keep_known_keys(self, ex)
        super().error(message, ex)


class _Hurry(L.Callback):
    """A second Ctrl-C, while Lightning tidies up after the first and ignores others, ends the process at once."""

    def on_exception(self, *_: Any) -> None:
        next_ends_at_once()


class _CLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Paths, "paths")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        with doing("Reading the config"):
            self.config = parser.parse_args(args)
        command = self.config[self.config.subcommand]
        if command.ckpt_path and self.config.subcommand == "fit":
            self.save_config_kwargs["config_filename"] = resume_from(command)
        elif command.ckpt_path:
            require_file(command.ckpt_path)

    def instantiate_classes(self) -> None:
        _take_our_output(self.config[self.config.subcommand])
        try:
            with doing("Building what it names"):
                super().instantiate_classes()
        except ValueError as error:
            raised = raised_by_class(error)
            raise raised from raised.__cause__


def _take_our_output(command: Any) -> None:
    """Put our progress bar into the config of a command that names none, and leave to us what Lightning would print."""
    trainer = command.trainer
    callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    callbacks = [callback for callback in callbacks if callback is not None]
    classes = [locate(getattr(callback, "class_path", "")) for callback in callbacks]
    if trainer.enable_progress_bar is not False and not any(
        isinstance(kind, type) and issubclass(kind, ProgressBar) for kind in classes
    ):
        trainer.callbacks = [*callbacks, jsonargparse.Namespace(class_path=_BAR)]
    if trainer.enable_model_summary is None:  # the bar has it in a line
        trainer.enable_model_summary = False
    if "verbose" in command:  # test and validate: `show_ending` has a table
        command.verbose = False


def run_cli(argv: list[str], places: dict[str, str], options: Sequence[str]) -> int:
    """Run a command of Lightning's trainer; see `lightning_sal.configs.running.run`.

    Args:
        argv: The command and its options, as `read_configs` gives them.
        places: Where each key is set last, as `read_configs` gives it.
        options: Those of the command as they were typed, for the commands that come next.
    """
    warn_untested("lightning", "jsonargparse")
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    keep_settings_by_name()
    try:
        with _complaints_as_lines(places):
            cli = _CLI(
                L.LightningModule,
                L.LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=SaveConfigCallback
                if argv[0] == "fit"
                else None,  # so that predict can be repeated
                seed_everything_default=0,
                auto_configure_optimizers=False,  # the modules make their own, from the parameters that are trained
                parser_class=_Parser,
                parser_kwargs={"parser_mode": "omegaconf+", "prog": "lightning", "exit_on_error": False},
                args=argv,
                trainer_defaults={"callbacks": [_Hurry()]},
            )
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning tidies up, then exits with 1
            raise type(stop.__context__) from None
        if stop.code == TERMINATED:
            return TERMINATED
        raise
    segmenter = cli.config[argv[0]].get("model.init_args.segmenter.init_args.source")
    show_ending(cli.trainer, cli.model, options, segmenter)
    return 0


@contextmanager
def _complaints_as_lines(places: dict[str, str]) -> Iterator[None]:
    """Inside, what jsonargparse, OmegaConf, Lightning and torch raise for a wrong config becomes an error of one line."""
    try:
        yield
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
