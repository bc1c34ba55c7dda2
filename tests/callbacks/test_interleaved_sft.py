"""Interleaved SFT on a module that knows nothing of saliency."""

import lightning as L
import pytest
import torch
from torch import nn

from lightning_sal.callbacks import InterleavedSFT


class Counted:
    """A loader that counts what was asked of it."""

    def __init__(self, name, length):
        self.name, self.length, self.drawn, self.started = name, length, 0, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.started += 1
        for i in range(self.length):
            self.drawn += 1
            yield torch.full((1, 1), float(i))


class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.phases = []

    def training_step(self, batch, batch_idx):
        self.phases.append(batch.phase)
        return self.layer(batch.batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Streams(L.LightningDataModule):
    def __init__(self, rl=100, sft=100):
        super().__init__()
        self.rl, self.sft = Counted("rl", rl), Counted("sft", sft)

    def train_dataloader(self):
        return {"rl": self.rl, "sft": self.sft}


def fit(callback, data, steps, tmp_path, **options):
    module = Plain()
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[callback],
        **options,
    )
    trainer.fit(module, datamodule=data)
    return module, trainer


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(period=4), "rrrsrrrsrr"),
        (dict(rl_steps=3, sft_steps=2), "rrrssrrrss"),
        (dict(rl_steps=1, sft_steps=1, warmup_sft=3), "sssrsrsrsr"),
        (dict(rl_steps=2, sft_steps=0), "rrrrrrrrrr"),
    ],
)
def test_schedule_and_what_is_drawn(options, expected, tmp_path):
    data = Streams()
    module, _ = fit(InterleavedSFT(**options), data, 10, tmp_path)
    assert "".join(phase[0] for phase in module.phases) == expected
    assert (data.rl.drawn, data.sft.drawn) == (expected.count("r"), expected.count("s"))
    assert data.sft.started == (1 if "s" in expected else 0)


def test_a_short_stream_starts_again_and_epochs_go_on_in_the_schedule(tmp_path):
    data = Streams(rl=4, sft=1)
    module, _ = fit(InterleavedSFT(rl_steps=3, sft_steps=2), data, 12, tmp_path)
    assert "".join(phase[0] for phase in module.phases) == "rrrssrrrssrr"
    assert data.sft.started == 4


def test_the_datamodule_gets_its_own_method_back(tmp_path):
    data = Streams()
    fit(InterleavedSFT(period=2), data, 2, tmp_path)
    assert data.train_dataloader() == {"rl": data.rl, "sft": data.sft}


def test_position_is_saved_and_restored(tmp_path):
    first = InterleavedSFT(rl_steps=3, sft_steps=2)
    _, trainer = fit(first, Streams(), 4, tmp_path)
    trainer.save_checkpoint(tmp_path / "at4.ckpt")
    module = Plain()
    data = Streams()
    again = InterleavedSFT(rl_steps=3, sft_steps=2)
    L.Trainer(
        max_steps=8,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[again],
    ).fit(module, datamodule=data, ckpt_path=tmp_path / "at4.ckpt", weights_only=True)
    assert "".join(phase[0] for phase in module.phases) == "srrr"


@pytest.mark.parametrize(
    "options",
    [dict(), dict(period=1), dict(period=3, rl_steps=1, sft_steps=1), dict(rl_steps=0, sft_steps=1), dict(rl_steps=3)],
)
def test_impossible_schedules_are_refused(options):
    with pytest.raises(ValueError, match="InterleavedSFT"):
        InterleavedSFT(**options)


def test_a_loader_without_streams_is_refused(tmp_path):
    class One(L.LightningDataModule):
        def train_dataloader(self):
            return [torch.zeros(1, 1)]

    with pytest.raises(ValueError, match=r"'rl'.*'sft'"):
        fit(InterleavedSFT(period=2), One(), 2, tmp_path)


def test_a_loader_without_length_has_an_epoch_without_end(tmp_path):
    class Endless(Counted):
        def __len__(self):
            raise TypeError

    data = Streams()
    data.rl = Endless("rl", 3)
    module, trainer = fit(InterleavedSFT(rl_steps=2, sft_steps=1), data, 10, tmp_path)
    assert "".join(phase[0] for phase in module.phases) == "rrsrrsrrsr"
    assert (trainer.current_epoch, data.rl.started) == (1, 3)  # one epoch, which max_steps ended
