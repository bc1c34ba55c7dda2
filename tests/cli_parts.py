"""A config that is valid, and how a command fails."""

from typing import Any

import pytest
from lightning.pytorch.cli import LightningCLI

from lightning_sal.cli import main

CONFIG = """\
model:
  class_path: lightning.pytorch.demos.boring_classes.DemoModel
  init_args: {out_dim: 4, learning_rate: 0.5}
data:
  class_path: lightning.pytorch.demos.boring_classes.BoringDataModule
trainer:
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  max_steps: 1
"""


def fails(capsys, argv: list[str], code: int) -> str:
    """The one line on stderr of a command that must exit with `code`."""
    assert main(argv) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("Seed set", "GPU", "TPU"))]
    assert len(lines) == 1
    assert lines[0].startswith("lightning: error: ")
    return lines[0].removeprefix("lightning: error: ")


def parsed_alone(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets trainer commands run as far as the parsed config, which each adds to the list; they need no inputs for that."""
    configs: list[Any] = []
    monkeypatch.setattr("lightning_sal.configs.running.require_inputs", lambda *_: None)
    monkeypatch.setattr("lightning_sal.configs.trainer_cli.show_ending", lambda *_: None)
    for name in ("trainer", "model"):
        monkeypatch.setattr(LightningCLI, name, None, raising=False)
    monkeypatch.setattr(LightningCLI, "instantiate_classes", lambda _: None)
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, name: configs.append(self.config[name]))
    return configs
