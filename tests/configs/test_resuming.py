"""A fit of the command line that goes on: from which checkpoint, in which folder, and what is said where there is none."""

from pathlib import Path

import pytest
import torch

from lightning_sal.cli import main

CONFIG = """\
model:
  class_path: lightning.pytorch.demos.boring_classes.DemoModel
data:
  class_path: lightning.pytorch.demos.boring_classes.BoringDataModule
trainer:
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  limit_val_batches: 0
  max_steps: 4
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {save_dir: runs, name: demo}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {every_n_train_steps: 2, save_top_k: -1, save_last: true, filename: "{step}"}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run of 4 steps, which no test changes."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("a.yaml").write_text(CONFIG)
        assert main(["fit", "--config", "a.yaml"]) == 0
    return folder


@pytest.fixture
def checkpoints(run, tmp_path, monkeypatch):
    """The checkpoints of a copy of that run, in whose folder the test works."""
    monkeypatch.chdir(tmp_path)
    for path in (path for path in run.rglob("*") if path.is_file()):
        copy = tmp_path / path.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "runs" / "demo" / "version_0" / "checkpoints"


def fit(*options):
    return main(["fit", "--config", "a.yaml", "--trainer.max_steps", "6", *options])


def line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_last_goes_on_in_the_folder_of_the_newest_run(checkpoints):
    assert fit("--ckpt_path", "last") == 0
    assert [path.name for path in Path("runs/demo").iterdir()] == ["version_0"]
    assert torch.load(checkpoints / "step=6.ckpt", weights_only=True)["global_step"] == 6
    assert {"config.yaml", "config-2.yaml"} <= {path.name for path in checkpoints.parent.iterdir()}
    assert "max_steps: 4" in (checkpoints.parent / "config.yaml").read_text()
    assert "max_steps: 6" in (checkpoints.parent / "config-2.yaml").read_text()


def test_a_stated_version_goes_on_too(checkpoints):
    assert fit("--ckpt_path", "last", "--trainer.logger.init_args.version", "0") == 0
    assert (checkpoints.parent / "config-2.yaml").is_file()


def test_a_stated_version_stays_what_was_stated(checkpoints):
    path = str(checkpoints / "step=2.ckpt")
    assert fit("--ckpt_path", path, "--trainer.logger.init_args.version", "branch") == 0
    assert sorted(path.name for path in Path("runs/demo").iterdir()) == ["branch", "version_0"]


def test_a_damaged_last_one_names_the_one_before_which_last_good_takes(checkpoints, capsys):
    last = checkpoints / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    (checkpoints / "step=4.ckpt").write_bytes(b"")
    for option in ("last", str(last)):
        assert fit("--ckpt_path", option) == 1
        message = line(capsys)
        assert "last.ckpt is not a checkpoint, or only the beginning of one" in message
        assert "step=2.ckpt" in message
        assert "--ckpt_path last-good" in message
    assert fit("--ckpt_path", "last-good") == 0
    assert torch.load(checkpoints / "step=6.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.parametrize("name", ["last", "last-good"])
def test_where_there_is_none_that_is_said(checkpoints, capsys, name):
    for path in checkpoints.iterdir():
        path.unlink()
    assert fit("--ckpt_path", name) == 1
    assert f"--ckpt_path {name}: there is no such checkpoint in runs/demo/version_0/checkpoints" in line(capsys)
    assert fit("--ckpt_path", name, "--trainer.logger.init_args.name", "other") == 1
    assert "there is no such checkpoint in" in line(capsys)
