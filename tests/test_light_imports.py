"""Other projects take metrics and callbacks without what trains here; whoever runs a command without it reads one line."""

import subprocess
import sys

import pytest

from lightning_sal import cli

HEAVY = ("sam2", "hydra", "peft", "omegaconf", "lightning_sal.policy.policy")
CODE = """
import sys
{before}
known = set(sys.modules)
import {room}
for name in {room}.__all__:
    getattr({room}, name)
new = set(sys.modules) - known
heavy = [name for name in {heavy} if name in sys.modules]
heavy += [name for name in new if name.partition(".")[0] in ("transformers", "accelerate")]
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("room", "before"),  # torchmetrics itself imports transformers where it is installed
    [
        ("lightning_sal.metrics", "import torchmetrics"),
        ("lightning_sal.callbacks", "import lightning, lightning.pytorch.cli"),
    ],
)
def test_metrics_and_callbacks_load_no_model_library(room, before):
    code = CODE.format(room=room, before=before, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def base(monkeypatch):
    """An installation without what trains."""
    monkeypatch.setattr(cli, "lacking", lambda extra: ["lightning", "peft"] if extra == "train" else [])
    monkeypatch.setattr(cli, "installing", lambda extra: f"pip install of-{extra}")


def test_training_without_its_packages_is_one_line(base, capsys):
    assert cli.main(["fit", "--config", "conf/quickstart.yaml"]) == 2
    line = capsys.readouterr().err
    assert line == "lightning: error: lightning fit needs packages that are not installed here: pip install of-train\n"


def test_a_command_without_its_packages_is_one_line(base, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_sal.pages.answer_folder", None)

    def missing(*_):
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr("lightning_sal.commands.segment._sources", missing)
    assert cli.main(["segment"]) == 2
    assert capsys.readouterr().err == (
        "lightning: error: transformers is not installed, which this command needs: pip install of-train\n"
    )
