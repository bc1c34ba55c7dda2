"""SIGTERM ends any command with 143, as Ctrl-C does with 130, and one line."""

import signal
import sys
from pathlib import Path

import pytest

from lightning_sal import commands
from lightning_sal.cli import main

WAITING = """
"Wait."
import os, signal, time
def main(argv):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        {}
    return 0
"""

MODEL = """
import os, signal
from lightning.pytorch.demos.boring_classes import DemoModel
class Terminated(DemoModel):
    def training_step(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)
"""


@pytest.mark.parametrize("then", ["raise", "pass"], ids=["ends by it", "ends in peace, as a server does"])
def test_any_command_ends_with_143_and_one_line(tmp_path, monkeypatch, capsys, then):
    (tmp_path / "wait_here.py").write_text(WAITING.format(then))
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "lightning_sal.commands.wait_here", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["wait-here"]) == 143
    assert capsys.readouterr().err == "lightning: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_fit_of_a_module_of_others_does_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("terminated_model.py").write_text(MODEL)
    options = ["--model=terminated_model.Terminated", "--data=lightning.pytorch.demos.boring_classes.BoringDataModule"]
    options += ["--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    Path("a.yaml").write_text("seed_everything: 0\n")
    assert main(["fit", "--config", "a.yaml", *options]) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "lightning: terminated"
