"""What a run of the command line leaves, and the one line that answers what goes wrong in it."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from lightning_sal.cli import main
from lightning_sal.errors import runtime_error_line
from tests.cli_parts import CONFIG, fails


def test_a_run_ends_with_zero_and_saves_its_config_once(config, capsys):
    argv = ["fit", "--config", config(), "--model.out_dim=3"]
    assert main(argv) == 0
    saved = yaml.safe_load(Path("config.yaml").read_text())
    assert saved["model"]["init_args"]["out_dim"] == 3
    capsys.readouterr()
    line = fails(capsys, argv, 1)
    assert "config.yaml is there already, of an earlier run, and is not overwritten" in line


def test_predicting_twice_in_one_folder_leaves_nothing_in_the_way(config):
    argv = ["predict", "--config", config(), "--return_predictions=false"]
    assert (main(argv), main(argv)) == (0, 0)
    assert not Path("config.yaml").exists()


def test_a_checkpoint_that_does_not_exist_is_one_line(config, capsys):
    line = fails(capsys, ["fit", "--config", config(), "--ckpt_path", "gone.ckpt"], 2)
    assert line == "command line: ckpt_path: gone.ckpt is not there"


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_a_strategy_whose_package_is_missing_is_one_line(config, capsys):
    path = config(f"{CONFIG}  strategy: {{class_path: lightning.pytorch.strategies.DeepSpeedStrategy}}\n")
    line = fails(capsys, ["fit", "--config", path], 1)
    assert line.startswith("To use the `DeepSpeedStrategy`, you must have DeepSpeed installed")


def test_what_a_part_of_the_module_says_is_one_line(config, capsys):
    segmenter = "{class_path: lightning_sal.segmenters.EVFSAM2.from_pretrained, init_args: {source: no/such/folder}}"
    text = CONFIG.replace(
        "lightning.pytorch.demos.boring_classes.DemoModel", "lightning_sal.modules.SegmenterFineTuning"
    )
    path = config(text.replace("{out_dim: 4, learning_rate: 0.5}", f"{{segmenter: {segmenter}}}"))
    line = fails(capsys, ["fit", "--config", path], 2)
    assert line == "a.yaml:3: model.segmenter.source: no/such/folder is not there"


def test_a_file_that_is_no_checkpoint_is_one_line(config, capsys):
    torch.save({"state_dict": {}}, "whole.ckpt")
    Path("part.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:200])
    line = fails(capsys, ["fit", "--config", config(), "--ckpt_path", "part.ckpt"], 1)
    assert line.startswith("part.ckpt is not a checkpoint")
    torch.save([1], "list.ckpt")
    line = fails(capsys, ["fit", "--config", config(), "--ckpt_path", "list.ckpt"], 1)
    assert line.startswith("list.ckpt is not a Lightning checkpoint")


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_word_for_a_checkpoint_that_is_not_known_is_one_line(config, capsys, name):
    assert fails(capsys, ["test", "--config", config(), "--ckpt_path", name], 1).startswith(f"--ckpt_path {name}: ")


def test_a_checkpoint_of_another_size_is_one_line(config, capsys):
    save = "trainer: {enable_checkpointing: true, callbacks: [{class_path: ModelCheckpoint, init_args: {dirpath: .}}]}"
    assert main(["fit", "--config", config(), "--config", config(save, "b.yaml")]) == 0
    (checkpoint,) = Path().glob("*.ckpt")
    Path("config.yaml").unlink()
    capsys.readouterr()
    line = fails(capsys, ["fit", "--config", config(), "--model.out_dim", "3", "--ckpt_path", str(checkpoint)], 1)
    assert line.startswith("the checkpoint does not fit the model of this run; ")


def test_a_rank_that_lost_another_says_so_in_one_line(monkeypatch):
    lost = RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:3456\nException raised from here")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (runtime_error_line(lost) or "").startswith("rank 1: stopped")
    assert runtime_error_line(RuntimeError("index out of range")) is None


@pytest.mark.parametrize(
    ("module", "init_args", "message"),
    [
        ("SODDataModule", "{train: no/such/folder}", "no/such/folder"),
        ("UnifiedDataModule", "{train: {sodd: .}}", "unknown task 'sodd'"),
        ("PredictDataModule", "{images: [gone.jpg]}", "gone.jpg: there is no such image file"),
    ],
)
def test_bad_data_is_one_line(config, capsys, module, init_args, message):
    data = f" {{class_path: lightning_sal.datamodules.{module}, init_args: {init_args}}}"
    path = config(CONFIG.replace("\n  class_path: lightning.pytorch.demos.boring_classes.BoringDataModule", data))
    line = fails(capsys, ["fit", "--config", path], 1)
    assert line.startswith(message)
    assert line.endswith("(LIGHTNING_SAL_TRACEBACK=1 shows the traceback)")


FAILING = """
import warnings
import torch
from lightning.pytorch.demos.boring_classes import BoringDataModule

class Failing(BoringDataModule):
    def __init__(self, error: str, workers: int = 0):
        super().__init__()
        if workers < 0:
            {}["a bug"]
        self.error, self.workers = error, workers
    def train_dataloader(self):
        warnings.warn("look here")
        return torch.utils.data.DataLoader(self, num_workers=self.workers)
    def __len__(self):
        return 4
    def __getitem__(self, index):
        raise {"ValueError": ValueError, "KeyError": KeyError}[self.error]("photo.jpg is truncated")
"""


@pytest.fixture
def failing(config, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    return [
        "fit",
        "--config",
        config(CONFIG.replace("lightning.pytorch.demos.boring_classes.Boring", "failing.Boring")),
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_value_in_a_run_is_one_line_from_workers_too(failing, capsys, workers):
    argv = [*failing, "--data=failing.Failing", "--data.error=ValueError", f"--data.workers={workers}"]
    with pytest.warns(UserWarning, match="look here"):  # a warning of the user's own is not silenced
        line = fails(capsys, argv, 1)
    assert line == "photo.jpg is truncated (LIGHTNING_SAL_TRACEBACK=1 shows the traceback)"


@pytest.mark.filterwarnings("ignore")
def test_the_traceback_is_there_for_bugs_and_on_request(failing, monkeypatch):
    argv = [*failing, "--data=failing.Failing", "--trainer.fast_dev_run=true"]
    with pytest.raises(KeyError):
        main([*argv, "--data.error=KeyError"])
    with pytest.raises(KeyError, match="a bug"):
        main([*argv, "--data.error=ValueError", "--data.workers=-1"])
    monkeypatch.setenv("LIGHTNING_SAL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="truncated"):
        main([*argv, "--data.error=ValueError"])


def test_advertisements_and_inner_deprecations_stay_off_the_screen(config, capsys):
    assert main(["fit", "--config", config(), "--trainer.fast_dev_run=true"]) == 0
    shown = capsys.readouterr()
    assert "litlogger" not in shown.out + shown.err
    assert "LeafSpec" not in shown.out + shown.err


def test_ctrl_c_is_one_line_and_130(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\nfrom lightning.pytorch.demos.boring_classes import DemoModel\n"
        "class Slow(DemoModel):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        print('training', flush=True)\n        time.sleep(60)\n"
    )
    (tmp_path / "a.yaml").write_text(CONFIG)
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_sal", "fit", "--config", "a.yaml", "--model=slow.Slow"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with the signal ignored, and they hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert any("training" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "lightning: interrupted"
    assert "Traceback" not in errors
