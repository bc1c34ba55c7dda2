"""Pictures, figures and texts arrive in the files of each logger, and nothing that was drawn stays in memory."""

import gc
import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from lightning_sal.callbacks import HyperParameters, Reliability, ResponseTypes, RolloutPanels
from lightning_sal.pages.loggers import board_of


class Foreign(L.LightningModule):
    """A module of another project, with one task without images."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.record = record()
        self.log("train/loss", 0.25)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(logger):
    callbacks = [RolloutPanels(1), ResponseTypes(every_n_steps=1), Reliability(every_n_steps=1), HyperParameters()]
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=logger, callbacks=callbacks, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Foreign(), torch.utils.data.DataLoader(torch.ones(2, 1)))


def entries(log):
    """The entries of a file of W&B, which is a log as LevelDB writes one: in blocks, which may cut an entry."""
    at, entry = 7, b""  # after what says whose file it is
    while at + 7 <= len(log):
        if 32768 - at % 32768 < 7:  # no room for a head: the rest of the block is empty
            at += -at % 32768
            continue
        length, part = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        entry += log[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def opened(paths):
    """How many pictures these are, each of which can be read."""
    sizes = [Image.open(path).convert("RGB").size for path in paths]
    assert all(width > 100 and height > 30 for width, height in sizes)
    return len(sizes)


def test_wandb_has_each_picture_text_and_number(tmp_path, monkeypatch):
    """Offline: what is in its folder is what `wandb sync` sends."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(name="run", save_dir=tmp_path, offline=True)
    fit(logger)
    logger.experiment.finish()
    (media,) = tmp_path.glob("wandb/offline-run-*/files/media")
    for name in ("sod", "response_types", "reliability"):
        assert opened((media / "images/rollouts").glob(f"{name}_*.png")) == 2
    tables = [json.loads(path.read_text()) for path in media.glob("table/rollouts/sod/text_*.table.json")]
    assert len(tables) == 2
    assert "<answer>key0</answer>" in tables[0]["data"][0][0]

    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows, config = [], {}
    for entry in map(wandb_internal_pb2.Record.FromString, entries(file.read_bytes())):
        rows += [{item.key or "/".join(item.nested_key): item.value_json for item in entry.history.item}]
        config |= {item.key: json.loads(item.value_json) for item in entry.config.update}
    assert any(row.get("train/loss") == "0.25" for row in rows)
    assert config["optimizer"] == "SGD"


def test_mlflow_has_each_picture_text_and_number(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("project", tracking_uri=f"file:{tmp_path}")
    fit(logger)
    client = mlflow.MlflowClient(f"file:{tmp_path}")
    run = client.get_run(logger.run_id)
    folder = tmp_path / run.info.experiment_id / run.info.run_id / "artifacts"
    for name in ("sod", "response_types", "reliability"):
        assert opened((folder / "images").glob(f"rollouts~{name}+step+*.png")) == 2
    text = (folder / "texts/rollouts/sod/step-000001.md").read_text()
    assert "<answer>key0</answer>" in text
    assert run.data.metrics["train/loss"] == 0.25
    assert run.data.params["optimizer"] == "SGD"


def test_a_table_of_numbers_takes_no_pictures(tmp_path):
    assert board_of(CSVLogger(tmp_path)) is None
    fit(CSVLogger(tmp_path, name=None, version=""))  # and nothing is in the way of the numbers
    assert "train/ece" in (tmp_path / "metrics.csv").read_text()


def record():
    rewards, confidence = torch.linspace(0, 1, 6), torch.linspace(1, 0, 6)
    return SimpleNamespace(
        groups=[SimpleNamespace(task="sod", key=str(n)) for n in range(6)],
        rollout=SimpleNamespace(texts=[f"<answer>key{n}</answer>" for n in range(6)]),
        rewards=SimpleNamespace(total=rewards),
        confidence=confidence,
        advantages=rewards - confidence,
    )


def figures():
    return sum(isinstance(held, Figure) for held in gc.get_objects())


def test_no_figure_stays_in_memory(tmp_path):
    trainer = SimpleNamespace(loggers=[TensorBoardLogger(tmp_path)], global_step=0, is_global_zero=True)
    module = SimpleNamespace(record=record(), device=torch.device("cpu"))
    callbacks = [ResponseTypes(every_n_steps=1), Reliability(every_n_steps=1)]
    for callback in callbacks:
        callback.on_train_start(trainer, module)
    before = figures()
    drawn: list[str] = []
    board = trainer.loggers[0].experiment
    add = board.add_image
    board.add_image = lambda name, *parts, **options: (drawn.append(name), add(name, *parts, **options))
    gc.disable()
    try:
        for trainer.global_step in (1, 2, 3):
            for callback in callbacks:
                callback.on_train_batch_end(trainer, module)
        assert drawn == ["rollouts/response_types", "rollouts/reliability"] * 3
        assert figures() == before
        assert not gc.get_freeze_count()
    finally:
        gc.enable()
