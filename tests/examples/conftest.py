"""Where the examples are, and what a test of one must not leave behind."""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from lightning_sal.cli import main

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
collect_ignore_glob = (
    [] if FOLDER.is_dir() else ["test_*.py"]
)  # a source distribution has the package and its tests alone
# Over the configs of an example: small enough for a test, and quiet.
SMALL = """
trainer:
  accelerator: cpu
  max_steps: 2
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  enable_checkpointing: false
  logger:
    class_path: lightning.pytorch.loggers.CSVLogger
    init_args: {save_dir: logs, name: null, version: ""}
  callbacks:
    - class_path: lightning_sal.callbacks.InterleavedSFT
      init_args: {rl_steps: 2, sft_steps: 1}
model:
  init_args: {max_new_tokens: 56}
data:
  init_args: {batch_size: 3}
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder of its own as the working directory, in which examples can be imported as by PYTHONPATH=examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)
    for path in FOLDER.glob("*.py"):  # of an earlier test, whose task is unknown now
        sys.modules.pop(path.stem, None)
    return tmp_path


@pytest.fixture
def lightning(project):
    """Runs `lightning WORD`, small; returns the values of each scalar of its log, in the order of the steps."""

    def run(word, *configs, options=()):
        (project / "small.yaml").write_text(SMALL)
        files = [argument for config in (*configs, "small.yaml") for argument in ("--config", str(config))]
        assert main([word, *files, *options]) == 0
        values = defaultdict(list)
        with (project / "logs/metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for name in filter(row.get, row):
                    values[name].append(float(row[name]))
        return values

    return run
