"""Reliability diagrams of a module that is not ours, and of validation, read back from TensorBoard's files."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import torchmetrics
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_sal.callbacks import Reliability
from lightning_sal.metrics import ConfidenceCalibration
from tests.modules.parts import scenes, sft, trainer


class Foreign(L.LightningModule):
    """`samples` has for each step (confidence, reward) of its responses; None where nothing was sampled."""

    def __init__(self, samples):
        super().__init__()
        self.layer, self.samples = nn.Linear(1, 1), samples

    def training_step(self, batch, batch_idx):
        pairs = self.samples[self.global_step]
        self.record = None if pairs is None else record(pairs)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def record(pairs):
    confidence, reward = torch.tensor(pairs, requires_grad=True).T
    return SimpleNamespace(confidence=confidence, rewards=SimpleNamespace(total=reward))


def fit(folder, samples, **options):
    run = trainer(
        folder, max_steps=len(samples), logger=TensorBoardLogger(folder, name=None, version=""),
        callbacks=[Reliability(**{"every_n_steps": 2, **options})], log_every_n_steps=1000,
    )  # fmt: skip
    run.fit(Foreign(samples), torch.utils.data.DataLoader(torch.ones(len(samples), 1)))
    return read(folder)


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB")).astype(int)


def test_figure_and_error_are_of_all_steps_since_the_last(tmp_path):
    """|0.95 - 0.45| over the two of one bin, then |0.25 - 1|."""
    events = fit(tmp_path, [[(0.95, 0.9)], [(0.95, 0.0)], None, [(0.25, 1.0)]])
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("train/ece")] == [
        (1, pytest.approx(0.5)),
        (3, pytest.approx(0.75)),
    ]
    assert [image.step for image in events.Images("rollouts/reliability")] == [1, 3]


def test_a_reward_that_is_no_probability_is_refused_and_not_clamped(tmp_path):
    with pytest.raises(ValueError, match=r"reward\[0\] is 1\.5; it must lie in \[0, 1\]"):
        fit(tmp_path, [[(0.25, 1.5)]])


def test_the_figure_shows_too_much_confidence_in_red_and_too_little_in_green(tmp_path):
    for name, pair, channel in (("over", (0.95, 0.1), 0), ("under", (0.15, 0.9), 1)):
        (image,) = fit(tmp_path / name, [[pair]] * 2).Images("rollouts/reliability")
        found = pixels(image)
        strongest = found.argmax(-1)[found.max(-1) - found.min(-1) > 40]  # neither grey, nor white, nor black
        blue = (strongest == 2).sum()
        gap = (strongest == channel).sum()
        assert gap > 10 * blue > 0  # a bar, and the marker of the line
        assert (strongest == 1 - channel).sum() < gap / 20


def test_a_figure_that_no_response_came_before_is_left_out(tmp_path):
    events = fit(tmp_path, [None, None, None, [(0.5, 0.5)]])
    assert [image.step for image in events.Images("rollouts/reliability")] == [3]


def test_validation_is_drawn_for_each_task_with_the_numbers_that_are_logged(tmp_path, monkeypatch):
    drawn, plot = {}, ConfidenceCalibration.plot

    def keep(self, val=None, ax=None):
        whole, axes = plot(self, val, ax)
        drawn[len(drawn)] = axes.get_title()
        return whole, axes

    monkeypatch.setattr(ConfidenceCalibration, "plot", keep)
    run = trainer(
        tmp_path, max_steps=1, logger=TensorBoardLogger(tmp_path, name=None, version=""), callbacks=[Reliability()],
        limit_val_batches=None, val_check_interval=1, num_sanity_val_steps=1,
    )  # fmt: skip
    run.fit(sft(), datamodule=scenes(streams=["sft"], steps_per_epoch=1, val_size=4, batch_size=4))
    events = read(tmp_path)
    names = [tag for tag in events.Tags()["images"] if tag.startswith("val/")]
    assert names == [f"val/{task}/reliability" for task in ("sod", "sis", "cosod")]
    for number, name in enumerate(names):
        (image,) = events.Images(name)  # none of the sanity check
        assert pixels(image).std() > 10  # not blank
        (ece,) = events.Scalars(name.replace("reliability", "ece"))
        assert drawn[number].startswith(f"ECE {ece.value:.3f}, ")


def test_values_are_over_all_processes_however_much_each_sampled(monkeypatch):
    """Two processes as threads, and what they would exchange through `torch.distributed`; one of them sampled nothing."""
    barrier, rank_of, sent, entries = threading.Barrier(2, timeout=60), threading.local(), {}, []

    def gather(value, group=None):
        sent[rank_of.this] = value
        barrier.wait()
        both = [sent[0], sent[1]]
        barrier.wait()
        return both

    monkeypatch.setattr(torchmetrics.metric, "gather_all_tensors", gather)

    def run(rank, samples):
        rank_of.this = rank
        logger = SimpleNamespace(log_metrics=lambda values, step: entries.append((rank, step, values)))
        fake = SimpleNamespace(global_step=0, is_global_zero=rank == 0, loggers=[logger])
        callback, module = Reliability(every_n_steps=1), Foreign(samples)
        callback.rollouts.distributed_available_fn = lambda: True
        callback.on_train_start(fake, module)
        module.record, fake.global_step = samples and record(samples), 1
        callback.on_train_batch_end(fake, module)
        return callback.rollouts.response_counts.sum().item()

    with ThreadPoolExecutor(2) as pool:
        left = list(pool.map(run, range(2), [None, [(0.95, 0.45), (0.15, 0.15)]]))
    assert entries == [(0, 0, {"train/ece": pytest.approx(0.25)})]
    assert left == [0, 0]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Reliability(every_n_steps=0)
