"""Run fit, validate, test or predict on config files. Light to import: what is heavy loads once the files were read."""

from __future__ import annotations

import logging
import warnings

from lightning_sal.configs.early import asks_alone, require_inputs, require_known
from lightning_sal.configs.places import read_configs
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
    argv, places = read_configs(argv)
    require_known(places)
    if not asks_alone(argv):
        require_inputs(argv[0], places)
    _silence()
    with importing():
        from lightning_sal.configs.trainer_cli import run_cli

    return run_cli(argv, places)


def _silence() -> None:
    """Keep notices off the screen that no user of this command can act on; all other warnings stay."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module=r"lightning\.pytorch\..*_pytree")
    # The new names are not in every version of transformers that is taken here.
    warnings.filterwarnings("ignore", message=r"`(is_)?gradient_checkpointing\w*` is deprecated")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not an advertisement, nor the notice of a Ctrl-C that the command line reports itself."""
    return not record.getMessage().lstrip().startswith(("💡 Tip: For seamless", "Detected KeyboardInterrupt"))
