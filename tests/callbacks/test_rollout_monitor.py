"""The monitor on a module that is not ours, read back from TensorBoard's files."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_sal.callbacks.rollout_monitor import RolloutMonitor
from lightning_sal.samples import Phased


class Phases:
    def __init__(self, phases):
        self.phases = phases

    def __len__(self):
        return len(self.phases)

    def __iter__(self):
        for phase in self.phases:
            yield torch.ones(1) if phase is None else Phased(phase, torch.ones(1))


class Foreign(L.LightningModule):
    """Gradient (3, 4) whatever the weights are, and two advantages a step."""

    def __init__(self, recording):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.recording = recording

    def training_step(self, batch, batch_idx):
        if self.recording:
            advantages = torch.tensor([batch_idx + 0.5, -1.0])
            self.record = None if batch_idx == 1 else SimpleNamespace(advantages=advantages)
        return self.weight @ torch.tensor([3.0, 4.0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder, phases, *, recording=True, every=1, **options):
    trainer = L.Trainer(
        max_steps=len(phases), accelerator="cpu", logger=TensorBoardLogger(folder, name=None, version=""),
        callbacks=[RolloutMonitor(histogram_every_n_steps=3)], log_every_n_steps=every,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    trainer.fit(Foreign(recording), Phases(phases))
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    return events


def values(events, name):
    return [scalar.value for scalar in events.Scalars(name)]


def test_the_gradient_norm_is_that_before_clipping(tmp_path):
    events = fit(tmp_path, [None, None], gradient_clip_val=0.1)
    assert values(events, "train/grad_norm") == pytest.approx([5, 5])


def test_the_share_of_sft_steps_is_over_all_steps_since_the_last_entry(tmp_path):
    events = fit(tmp_path, ["rl", "rl", "rl", "sft", "sft"] * 2, every=5)
    assert values(events, "train/phase/sft") == pytest.approx([0.4, 0.4])


def test_a_module_without_phases_and_records_is_all_rl(tmp_path):
    events = fit(tmp_path, [None, None, None], recording=False)
    assert values(events, "train/phase/sft") == [0, 0, 0]
    assert events.Tags()["histograms"] == []
    assert min(values(events, "train/seconds/step")) > 0
    assert 0.05 < values(events, "train/memory_gb")[-1] < 100  # this process holds torch


def test_histograms_hold_the_advantages_of_all_steps_since_the_last(tmp_path):
    events = fit(tmp_path, ["rl"] * 7)
    histograms = events.Histograms("train/advantage/histogram")
    assert [histogram.step for histogram in histograms] == [2, 5]
    values = [histogram.histogram_value for histogram in histograms]
    assert [(value.num, value.min, value.max) for value in values] == [(4, -1, 2.5), (6, -1, 5.5)]
    assert values[1].sum == pytest.approx(3.5 + 4.5 + 5.5 - 3)
