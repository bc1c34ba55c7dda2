"""Short runs, and a workspace for each page."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI

from tests.annotation.server import Model, Server
from tests.docs.workspace import make_run, make_workspace

# Settings of any config -> the most that they may be in a test.
AT_MOST = {
    "max_steps": 2,
    "log_every_n_steps": 1,
    "every_n_train_steps": 2,
    "every_n_steps": 1,
    "batch_size": 2,
    "responses_per_prompt": 2,
    "prompts_per_step": 2,
    "updates_per_rollout": 2,
    "max_new_tokens": 16,
    "overlong_buffer": 4,
    "annotated": 6,
    "val_size": 3,
    "test_size": 3,
    "num_workers": 0,
    "devices": 1,
    "num_nodes": 1,
}


def lessen(config: Any) -> None:
    """Lower every number of `AT_MOST` in a config, at any depth."""
    if isinstance(config, list):
        for each in config:
            lessen(each)
    elif isinstance(config, Namespace):
        for key, value in vars(config).items():
            if key in AT_MOST and isinstance(value, int):
                setattr(config, key, min(value, AT_MOST[key]))
            lessen(value)


def shorten(cli: LightningCLI) -> None:
    """Let a trainer command do a little of what its config says, on this machine, in this process."""
    config = cli.config[cli.subcommand]
    lessen(config)
    config.trainer.accelerator, config.trainer.devices, config.trainer.strategy = "cpu", 1, "auto"


@pytest.fixture(scope="session")
def server() -> Iterator[Model]:
    """A model behind an OpenAI-compatible server, for the commands that ask one."""
    with Server(Model()) as model:
        yield model


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that stays as it is."""
    folder = tmp_path_factory.mktemp("workspace")
    make_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightningCLI, "before_instantiate_classes", shorten)
        patch.setattr(
            "lightning_sal.configs.running.require_inputs", lambda *_: None
        )  # `shorten` changes what is asked for
        patch.chdir(folder)
        make_run()
    return folder


@pytest.fixture
def workspace(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder, in which runs are short."""
    monkeypatch.setattr(LightningCLI, "before_instantiate_classes", shorten)
    monkeypatch.setattr("lightning_sal.configs.running.require_inputs", lambda *_: None)
    folder = tmp_path / "workspace"
    shutil.copytree(filled, folder)
    monkeypatch.chdir(folder)
    return folder
