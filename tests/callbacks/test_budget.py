"""Budgets, on a module that knows nothing of saliency."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from lightning_sal.callbacks import Budget, InterleavedSFT
from lightning_sal.callbacks import budget as module_of_budget


class Streams(L.LightningDataModule):
    def train_dataloader(self):
        return {phase: [torch.zeros(1, 1)] * 50 for phase in ("rl", "sft")}

    def val_dataloader(self):
        return [torch.zeros(1, 1)]


class Sampling(L.LightningModule):
    """Two responses to each of three prompts an RL step, which takes 2 seconds by the clock; an SFT step takes 1."""

    def __init__(self, clock):
        super().__init__()
        self.layer, self.clock, self.phases, self.record = nn.Linear(1, 1), clock, "", None

    def training_step(self, batch, batch_idx):
        self.phases += batch.phase[0]
        self.clock.now += 2 if batch.phase == "rl" else 1
        prompts = [object() for _ in range(3)]
        self.record = (
            SimpleNamespace(groups=[each for each in prompts for _ in range(2)]) if batch.phase == "rl" else None
        )
        return self.layer(batch.batch).sum()

    def validation_step(self, batch, batch_idx):
        self.clock.now += 100

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def clock(monkeypatch):
    time = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module_of_budget, "time", SimpleNamespace(perf_counter=lambda: time.now))
    return time


def fit(clock, tmp_path, budget, *, first=False, checkpoint=None, **options):
    """The phases of a run that its budget ends; 40 steps at most."""
    module, schedule = Sampling(clock), InterleavedSFT(rl_steps=3, sft_steps=2, warmup_sft=1)
    trainer = L.Trainer(
        max_steps=options.pop("max_steps", 40),
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[budget, schedule] if first else [schedule, budget],
        **options,
    )
    trainer.fit(module, datamodule=Streams(), ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return module.phases, trainer


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("options", "phases"),
    [
        (dict(prompts=9), "srrrss"),
        (dict(prompts=10), "srrrssr"),  # the first step of a cycle spends it: the next would be RL
        (dict(responses=24), "srrrssr"),
        (dict(responses=36), "srrrssrrrss"),
        (dict(seconds=1), "s"),
        (dict(seconds=6.5), "srrr"),  # at once, whatever the schedule
    ],
)
def test_a_run_ends_where_its_budget_is_spent(options, phases, first, clock, tmp_path):
    assert fit(clock, tmp_path, Budget(**options), first=first)[0] == phases


def test_validation_costs_nothing(clock, tmp_path):
    budget = Budget(seconds=10)
    assert fit(clock, tmp_path, budget, val_check_interval=2, check_val_every_n_epoch=None)[0] == "srrrssr"
    assert budget.spent == {"prompts": 12, "responses": 24, "seconds": 11}


def test_a_run_that_goes_on_has_what_is_left(clock, tmp_path):
    first = Budget(responses=30)
    phases, trainer = fit(clock, tmp_path, first, max_steps=3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    clock.now += 1000  # between the two
    again = Budget(responses=30)
    later, trainer = fit(clock, tmp_path, again, checkpoint=tmp_path / "half.ckpt")
    assert phases + later == "srrrssrr"
    assert again.spent == {"prompts": 15, "responses": 30, "seconds": 13}
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    assert fit(clock, tmp_path, Budget(responses=30), checkpoint=tmp_path / "whole.ckpt")[0] == ""


@pytest.mark.parametrize(("options", "steps"), [(dict(responses=1), 4), (dict(seconds=2), 2)])
def test_sft_alone_samples_nothing_and_has_no_schedule(options, steps, clock, tmp_path):
    class Alone(Sampling):
        def training_step(self, batch, batch_idx):
            self.clock.now += 1
            return self.layer(batch).sum()

    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        max_steps=4, accelerator="cpu", default_root_dir=tmp_path, callbacks=[Budget(**options)], **quiet
    )
    trainer.fit(Alone(clock), torch.utils.data.DataLoader(torch.zeros(50, 1)))
    assert trainer.global_step == steps


def test_a_run_that_would_have_no_end_is_refused(clock, tmp_path):
    module, endless = Sampling(clock), {"max_epochs": -1, "default_root_dir": tmp_path, "logger": False}
    del module.record
    trainer = L.Trainer(accelerator="cpu", callbacks=[Budget(prompts=1)], **endless)
    with pytest.raises(ValueError, match="Sampling samples no prompts, so set"):
        trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(50, 1)))


@pytest.mark.parametrize("options", [{}, {"prompts": 1, "seconds": 1}, {"responses": 0}, {"seconds": -1}])
def test_anything_but_one_budget_is_refused(options):
    with pytest.raises(ValueError, match="exactly one of prompts, responses and seconds"):
        Budget(**options)
