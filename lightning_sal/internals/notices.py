"""What libraries show on the screen and no user of the command line can act on."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def silence() -> None:
    """Keep notices off the screen that no user of this command can act on; all other warnings stay."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module=r"lightning\.pytorch\..*_pytree")
    # The new names are not in every version of transformers that is taken here.
    warnings.filterwarnings("ignore", message=r"`(is_)?gradient_checkpointing\w*` is deprecated")
    # Policies sample in evaluation mode, and what is frozen stays in it.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # Of the results of a part of the data that a metric has not seen.
    warnings.filterwarnings("ignore", message=r"The ``compute`` method of metric \w+ was called before the ``update``")
    # A test of a checkpoint writes to a folder of its own.
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
    # It tells which kernels there are, and the like; what is wrong with a model, `policy.loading` refuses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero", "fabric.utilities.seed"):
        logging.getLogger(f"lightning.{name}").addFilter(_is_news)


_NO_NEWS = (
    "💡 Tip: For seamless",
    "Detected KeyboardInterrupt",  # the command line says so itself
    "Seed set to",  # by the config
    "Restoring states from the checkpoint path at",  # which was given
    "Loaded model weights from the checkpoint at",
    "GPU available:",  # the bar says what is used
    "TPU available:",
    "LOCAL_RANK:",
    "`Trainer.fit` stopped: `max_steps=",  # as the bar shows
    "`Trainer.fit` stopped: `max_epochs=",
)


def _is_news(record: logging.LogRecord) -> bool:
    """Neither an advertisement nor what our own lines say."""
    return not record.getMessage().lstrip().startswith(_NO_NEWS)


@contextmanager
def without_bars() -> Iterator[None]:
    """Inside, transformers draws no bar of the weights that it loads or writes; those of downloads stay."""
    from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

    before = set_tqdm_hook(lambda _, args, kwargs: EmptyTqdm(*args, **kwargs))
    try:
        yield
    finally:
        set_tqdm_hook(before)
