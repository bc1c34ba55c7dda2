"""Run fit, validate, test or predict on config files. Light to import: what is heavy loads once the files were read."""

from __future__ import annotations

import logging
import os
import warnings

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
    _silence()
    try:
        with doing("Loading the libraries"), importing():
            from lightning_sal.configs.trainer_cli import run_cli

        return run_cli(words, places, argv[1:])
    finally:
        end_all()


def _silence() -> None:
    """Keep notices off the screen that no user of this command can act on; all other warnings stay."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module=r"lightning\.pytorch\..*_pytree")
    # The new names are not in every version of transformers that is taken here.
    warnings.filterwarnings("ignore", message=r"`(is_)?gradient_checkpointing\w*` is deprecated")
    # Policies sample in evaluation mode, and what is frozen stays in it.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # Of the results of a part of the data that a metric has not seen.
    warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric \w+ was called before the ``update``")
    # It tells which kernels there are, and the like; what is wrong with a model, `policy.loading` refuses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").addFilter(_is_news)


_NO_NEWS = (
    "💡 Tip: For seamless",
    "Detected KeyboardInterrupt",  # the command line says so itself
    "Seed set to",  # by the config
    "GPU available:",  # the bar says what is used
    "TPU available:",
    "LOCAL_RANK:",
    "`Trainer.fit` stopped: `max_steps=",  # as the bar shows
    "`Trainer.fit` stopped: `max_epochs=",
)


def _is_news(record: logging.LogRecord) -> bool:
    """Neither an advertisement nor what our own lines say."""
    return not record.getMessage().lstrip().startswith(_NO_NEWS)
