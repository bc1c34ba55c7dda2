"""What is wrong with a run is said in one line, before anything heavy is imported."""

import sys

import pytest

from lightning_sal.cli import main
from lightning_sal.configs.early import missing_class, stated
from lightning_sal.internals import gpus, hub
from tests.cli_parts import CONFIG, fails

POLICY = """\
model:
  class_path: lightning_sal.modules.SFT
  init_args: {policy: {model: MODEL}}
data:
  class_path: lightning_sal.datamodules.SFTDataModule
  init_args: {train: TRAIN}
"""


@pytest.fixture(autouse=True)
def light(monkeypatch):
    """A fit that gets as far as the imports fails."""
    monkeypatch.setitem(sys.modules, "lightning_sal.configs.trainer_cli", None)
    monkeypatch.setattr(hub, "require_hub", lambda name: None)


@pytest.fixture
def policy(config):
    return lambda model, train: config(POLICY.replace("MODEL", model).replace("TRAIN", train))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("data:", "dta:"), "a.yaml:4: dta: unknown key; did you mean data?"),
        (
            ("DemoModel", "DemoModle"),
            "a.yaml:2: model.class_path: module 'lightning.pytorch.demos.boring_classes' has no attribute 'DemoModle'; "
            "did you mean DemoModel?",
        ),
        (("lightning.pytorch.demos", "lightening"), "a.yaml:2: model.class_path: No module named 'lightening'"),
    ],
)
def test_what_is_unknown_needs_no_import_to_be_told(config, capsys, change, message):
    assert fails(capsys, ["fit", "--config", config(CONFIG.replace(*change))], 2) == message


@pytest.mark.parametrize(
    "path",
    [
        "lightning_sal.modules.CGPO",
        "lightning_sal.callbacks.SaveAdapter",
        "lightning_sal.segmenters.EVFSAM2.from_pretrained",
        "torch.optim.AdamW",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "ModelCheckpoint",
        "tests.cli_parts.CONFIG",
    ],
)
def test_a_class_that_exists_is_never_refused(path):
    assert missing_class(path) is None


def test_of_lazily_loaded_packages_the_stub_is_asked():
    assert missing_class("lightning_sal.callbacks.SaveAdaptor") == (
        "module 'lightning_sal.callbacks' has no attribute 'SaveAdaptor'; did you mean SaveAdapter?"
    )


def test_a_gpu_that_is_not_there(config, capsys, monkeypatch):
    monkeypatch.setattr(gpus, "_FILES", ())
    path = config(CONFIG.replace("accelerator: cpu", "accelerator: gpu"))
    assert fails(capsys, ["fit", "--config", path], 2) == (
        "a.yaml:7: trainer.accelerator: gpu: this machine has no GPU; cpu works"
    )
    line = fails(capsys, ["fit", "--config", config(), "--trainer.accelerator", "cuda"], 2)
    assert line.startswith("command line: trainer.accelerator: cuda: this machine has no GPU")


@pytest.mark.parametrize("command", ["segment", "explain", "demo", "decompose"])
def test_a_device_that_is_not_there(capsys, monkeypatch, command):
    monkeypatch.setattr(gpus, "_FILES", ())
    assert fails(capsys, [command, "--device", "cuda:1"], 2) == "--device cuda:1: this machine has no GPU; cpu works"


def test_a_gpu_may_be_hidden(monkeypatch):
    monkeypatch.setattr(gpus, "_FILES", ("/dev/null",))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.without_gpu("cuda") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in str(gpus.without_gpu("gpu"))
    assert gpus.without_gpu("cpu") is None


def test_a_fit_without_data_names_the_option(config, policy, capsys):
    assert fails(capsys, ["fit", "--config", config(CONFIG.replace("data:", "paths:"))], 2).startswith("no data given")
    line = fails(capsys, ["fit", "--config", policy("tiny", "null")], 2)
    assert line == "a.yaml:6: data.train: no data to fit on: give them by --data.init_args.train FOLDER"
    line = fails(capsys, ["fit", "--config", "conf/real/sod.yaml"], 2)
    assert line.endswith("data.train: no data to fit on: give them by --data.init_args.train FOLDER")


def test_an_earlier_stage_is_named_by_its_commands(policy, capsys):
    line = fails(capsys, ["fit", "--config", "conf/cgpo.yaml", "--paths.runs", "mine"], 2)
    assert "model.policy.model: mine/sft/model is not there: run first lightning fit --config conf/sft.yaml" in line
    assert line.endswith("lightning-sal export mine/sft/version_0/checkpoints/last.ckpt --out mine/sft/model")
    line = fails(
        capsys,
        ["test", "--config", policy("tiny", "x"), "--ckpt_path", "runs/cgpo/version_0/checkpoints/last.ckpt"],
        2,
    )
    assert line.endswith("last.ckpt is not there: lightning fit --config conf/cgpo.yaml writes it")


def test_data_below_a_stated_folder_are_looked_for(policy, capsys):
    line = fails(capsys, ["fit", "--config", policy("tiny", "'${paths.data}/sft.jsonl'"), "--paths.data", "/mnt"], 2)
    assert line == "a.yaml:6: data.train: /mnt/sft.jsonl is not there: say where it is, --paths.data"


def test_help_and_the_config_alone_need_nothing_of_it(policy):
    for option in ("--print_config", "--help"):
        with pytest.raises(ImportError):  # it came as far as that
            main(["fit", "--config", policy("a/b/c", "null"), option])


def test_the_last_value_counts_and_replaces_what_stood_below():
    places = dict.fromkeys(
        ["model.class_path=a.B", "model.x=1", "model.class_path=a.C", "model.y.z=2", "model.y=null"], ""
    )
    assert stated(places) == {"model.class_path": "a.C", "model.y": "null"}
