"""Spread of embeddings of a module that is not ours, read back from TensorBoard's files and from those it leaves."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_sal.callbacks import EmbeddingSpread, ranks
from lightning_sal.evaluation.embeddings import read_embeddings, text_hash
from lightning_sal.modules import GRPO
from tests.modules.parts import cgpo, scenes, trainer


def responses(rows, scored=None):
    """Responses with embeddings as given; the n-th has the text "n" and the reward n / 10."""
    count = len(rows)
    record = SimpleNamespace(
        groups=[SimpleNamespace(key=f"key{n}", task="sod" if n % 2 else "sis") for n in range(count)],
        rollout=SimpleNamespace(texts=[str(n) for n in range(count)]),
        rewards=SimpleNamespace(total=torch.arange(count) / 10),
        embeddings=torch.tensor(rows, requires_grad=True).view(count, -1),
    )
    if scored is not None:
        record.scored = torch.tensor(scored)
    return record


class Foreign(L.LightningModule):
    """`samples` has the record of each step; None where nothing was sampled."""

    def __init__(self, samples):
        super().__init__()
        self.layer, self.samples = nn.Linear(1, 1), samples

    def training_step(self, batch, batch_idx):
        self.record = self.samples[self.global_step]
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder, samples, logger=None, **options):
    run = trainer(
        folder, max_steps=len(samples), logger=logger or TensorBoardLogger(folder, name=None, version=""),
        callbacks=[EmbeddingSpread(**{"every_n_steps": 2, **options})], log_every_n_steps=1000,
    )  # fmt: skip
    run.fit(Foreign(samples), torch.utils.data.DataLoader(torch.ones(len(samples), 1)))


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def scalars(events, name):
    return [(scalar.step, pytest.approx(scalar.value)) for scalar in events.Scalars(f"train/embedding/{name}")]


SQUARE = [[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [0.0, 2.0, 5.0], [2.0, 2.0, 5.0]]  # squared distance 2 to (1, 1, 5)
LINE = [[0.0, 0.0, 0.0], [0.0, 0.0, 6.0]]


def test_numbers_are_by_hand_and_steps_without_two_responses_give_way_to_the_next(tmp_path):
    fit(tmp_path, [None, responses(SQUARE), responses([[1.0, 1.0, 1.0]]), responses(LINE), responses(LINE[:1])])
    events = read(tmp_path)
    assert scalars(events, "spread") == [(1, 2.0), (3, 9.0)]
    assert scalars(events, "participation_ratio") == [(1, 2.0), (3, 1.0)]
    images = events.Images("rollouts/embeddings")
    assert [image.step for image in images] == [1, 3]
    pixels = np.asarray(Image.open(io.BytesIO(images[0].encoded_image_string)).convert("RGB"))
    assert pixels.std() > 10
    assert sorted(path.name for path in tmp_path.rglob("*.npz")) == ["embeddings-000001.npz", "embeddings-000003.npz"]


def test_files_hold_what_was_measured(tmp_path):
    fit(tmp_path, [responses(SQUARE, [True, False, True, True])])
    found = read_embeddings(tmp_path / "embeddings/embeddings-000000.npz")
    assert found.step == 0
    assert found.embeddings.tolist() == [SQUARE[0], *SQUARE[2:]]
    assert found.rewards.tolist() == pytest.approx([0.0, 0.2, 0.3])
    assert (found.tasks, found.keys) == (("sis", "sis", "sod"), ("key0", "key2", "key3"))
    assert found.hashes == tuple(map(text_hash, "023"))


def test_other_loggers_get_the_numbers(tmp_path):
    fit(tmp_path, [responses(LINE)], logger=CSVLogger(tmp_path, name=None, version="csv"))
    assert "train/embedding/spread" in (tmp_path / "csv/metrics.csv").read_text()
    assert (tmp_path / "csv/embeddings/embeddings-000000.npz").is_file()


def test_the_projector_gets_them_where_asked(tmp_path):
    fit(tmp_path, [responses(SQUARE)], projector=True)
    assert (tmp_path / "projector_config.pbtxt").is_file()
    (tensors,) = tmp_path.rglob("tensors.tsv")
    assert np.loadtxt(tensors).tolist() == SQUARE


def test_embeddings_that_are_not_finite_are_seen_and_stop_nothing(tmp_path):
    fit(tmp_path, [responses([[float("nan"), 0.0], [1.0, 0.0]])])
    events = read(tmp_path)
    assert np.isnan(events.Scalars("train/embedding/spread")[0].value)
    assert events.Tags()["images"] == []


@pytest.mark.parametrize("make", ["cgpo", "grpo"])
def test_a_run_of_ours_has_them(make, tmp_path):
    module = cgpo() if make == "cgpo" else grpo()
    callback = EmbeddingSpread(every_n_steps=1, folder=tmp_path / "kept" / make)
    run = trainer(
        tmp_path, max_steps=2, logger=TensorBoardLogger(tmp_path, name=None, version=""), callbacks=[callback],
    )  # fmt: skip
    run.fit(module, datamodule=scenes(streams=["rl"], batch_size=3))
    files = sorted((tmp_path / "kept" / make).iterdir())
    assert len(files) == 2
    found = read_embeddings(files[-1])
    assert found.embeddings.shape == (len(module.record.groups), module.policy.backbone.width)
    assert torch.equal(found.embeddings, module.record.embeddings)
    assert found.hashes == tuple(map(text_hash, module.record.rollout.texts))
    assert callback.state_dict() == {"measured": 1}


def grpo():
    made = cgpo()
    torch.manual_seed(0)
    return GRPO(policy=made.policy_config, segmenter=made.segmenter, max_new_tokens=8, responses_per_prompt=2)


def test_responses_of_all_processes_are_measured_once(tmp_path, monkeypatch):
    """Two processes as threads, and what they would exchange through `torch.distributed`; one of them sampled nothing."""
    barrier, rank_of, sent, entries = threading.Barrier(2, timeout=60), threading.local(), {}, []

    def gather(parts, own):
        sent[rank_of.this] = own
        barrier.wait()
        parts[:] = [sent[0], sent[1]]
        barrier.wait()

    exchange = {"is_available": lambda: True, "is_initialized": lambda: True, "get_world_size": lambda: 2}
    monkeypatch.setattr(ranks, "distributed", SimpleNamespace(**exchange, all_gather_object=gather))

    def run(rank, samples):
        rank_of.this = rank
        logger = SimpleNamespace(log_metrics=lambda values, step: entries.append((rank, step, values)))
        fake = SimpleNamespace(
            global_step=0, is_global_zero=rank == 0, loggers=[logger], log_dir=tmp_path, default_root_dir=tmp_path
        )
        callback = EmbeddingSpread(every_n_steps=1)
        callback.on_train_start(fake, None)
        for fake.global_step, record in enumerate(samples, 1):
            callback.on_train_batch_end(fake, SimpleNamespace(record=record))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2), [[responses(SQUARE[:2]), None], [responses(SQUARE[2:]), responses(LINE)]]))
    assert [(rank, step) for rank, step, _ in entries] == [(0, 0), (0, 1)]
    assert entries[0][2] == {"train/embedding/spread": 2.0, "train/embedding/participation_ratio": pytest.approx(2.0)}
    assert read_embeddings(tmp_path / "embeddings/embeddings-000000.npz").embeddings.tolist() == SQUARE


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        EmbeddingSpread(every_n_steps=0)
