"""Run fit, validate, test or predict on config files. Light to import: what is heavy loads once the files were read."""

from __future__ import annotations

from lightning_sal.configs.early import asks_alone, require_inputs, require_known
from lightning_sal.configs.places import read_configs
from lightning_sal.internals.activity import doing, end_all
from lightning_sal.internals.importing import importing


def run(argv: list[str]) -> int:
    """Run a command of Lightning's trainer.

    Args:
        argv: The command, `--config FILE` and options.

    Returns:
        The exit code: 0, or 143 after SIGTERM.

    Raises:
        UsageError: If a config or an option cannot be read.
        ValueError: If what it describes cannot be built or run.
        SystemExit: After `--help` and `--print_config`, and where Lightning ends the process.
    """
    words, places = read_configs(argv)
    require_known(places)
    if not asks_alone(words):
        require_inputs(words[0], places)
    try:
        with doing("Loading the libraries"), importing():
            from lightning_sal.configs.trainer_cli import run_cli

        return run_cli(words, places, argv[1:])
    finally:
        end_all()
