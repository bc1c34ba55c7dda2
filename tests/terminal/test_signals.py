"""Ctrl-C and SIGTERM end a fit whatever it is at, by one line."""

import signal
import subprocess
import sys
import time

import pexpect
import pytest
import yaml

from tests.cli_parts import CONFIG
from tests.terminal.record import Terminal
from tests.terminal.test_terminal import quickstart

SLOW_TO_TIDY = """
import time
from lightning.pytorch.demos.boring_classes import BoringDataModule
class Data(BoringDataModule):
    def on_exception(self, exception):
        print("tidying up", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize(
    ("at", "terminate"),
    [
        ("Loading the model", False),
        ("Before training", True),
        ("SFT only", False),
        ("step 1/5", False),
        ("After training", True),
    ],
)
def test_a_fit_ends_in_any_phase(tmp_path, at, terminate):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(quickstart()))
    terminal = Terminal(["fit", "--config", "a.yaml"], tmp_path)
    terminal.wait_for(at)
    terminal.terminate() if terminate else terminal.press_ctrl_c()
    assert terminal.end() == (143 if terminate else 130)
    lines = terminal.screen.lines
    assert f"lightning: {'terminated' if terminate else 'interrupted'}" == lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("swallowed", ["as an error of its own", "in silence"])
def test_it_ends_though_a_library_takes_the_interrupt(tmp_path, swallowed):
    then = "raise RecursionError" if swallowed == "as an error of its own" else "pass"
    (tmp_path / "torch.py").write_text(
        f"import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    {then}\n"
    )  # stands before the library of this name
    (tmp_path / "run.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from lightning_sal import cli\nfrom lightning_sal.internals.importing import importing\n"
        "def command(_):\n    with importing():\n        import torch\n    return 0\n"
        "cli._dispatch = command\nsys.exit(cli.main([]))\n"
    )
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "lightning: interrupted\n")


def test_it_ends_while_libraries_load(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(quickstart()))
    command = ["-m", "lightning_sal", "fit", "--config", "a.yaml"]
    child = pexpect.spawn(
        sys.executable, command, cwd=str(tmp_path), timeout=120, encoding="utf-8", preexec_fn=_heed_ctrl_c
    )
    child.expect_exact("Loading the libraries")
    time.sleep(1)  # into an import
    child.sendintr()
    child.expect_exact("lightning: interrupted")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in str(child.before)


def _heed_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background ignores, and so its children


def test_a_second_ctrl_c_does_not_wait_for_anyone_to_tidy_up(tmp_path):
    config = yaml.safe_load(CONFIG)
    config["data"], config["trainer"] = (
        {"class_path": "slow.Data"},
        config["trainer"] | {"max_steps": -1, "max_epochs": -1},
    )
    (tmp_path / "slow.py").write_text(SLOW_TO_TIDY)
    (tmp_path / "a.yaml").write_text(
        yaml.safe_dump(config | {"trainer": config["trainer"] | {"enable_progress_bar": True}})
    )
    terminal = Terminal(["fit", "--config", "a.yaml"], tmp_path)
    terminal.wait_for("Training")
    terminal.press_ctrl_c()
    terminal.wait_for("tidying up")
    terminal.press_ctrl_c()
    assert terminal.end() == 130
    assert "at once" in terminal.seen
