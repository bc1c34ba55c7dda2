"""The picture of all curves, on a module that is not ours."""

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_sal.callbacks import Curves
from lightning_sal.pages.curves import figure


class Foreign(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.log("train/reward/mean", self.global_step / 10)
        self.log("train/other", 1.0)
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/sod/reward", self.global_step / 10)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder, callback, steps, **options):
    logger = TensorBoardLogger(folder, name=None, version="")
    trainer = L.Trainer(
        max_steps=steps, accelerator="cpu", logger=logger, callbacks=[callback], log_every_n_steps=2,
        check_val_every_n_epoch=None, val_check_interval=3, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = torch.utils.data.DataLoader(torch.ones(8, 1))
    trainer.fit(Foreign(), data, data, **options)
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return [image.step for image in events.Images("curves")], trainer


def test_curves_hold_what_was_logged_and_go_on_after_a_checkpoint(tmp_path):
    callback = Curves(every_n_steps=4)
    steps, trainer = fit(tmp_path / "a", callback, 6)
    assert steps == [3, 5]  # and at the end
    first = {
        "train/reward/mean": [(1, 0.1), (3, 0.3), (5, 0.5)],
        "val/sod/reward": [(2, 0.3), (5, 0.6)],  # nothing of the check before the first step
    }
    assert rounded(callback) == first
    trainer.save_checkpoint(tmp_path / "at-6.ckpt")
    again = Curves(every_n_steps=4)
    fit(tmp_path / "b", again, 8, ckpt_path=tmp_path / "at-6.ckpt")
    assert rounded(again) == first | {"train/reward/mean": [*first["train/reward/mean"], (7, 0.7)]}


def rounded(callback):
    lines = callback.state_dict()["lines"]
    return {name: [(step, round(value, 4)) for step, value in points] for name, points in lines.items()}


def test_each_line_of_a_chart_has_a_colour_and_a_name():
    lines = {f"train/reward/{term}": [(0, 0.0), (7, 1.0)] for term in ("mean", "format", "correctness")}
    drawn = figure(
        lines | {"train/loss": [(0, 1.0)]}, {"Reward": ["train/reward/"], "None": ["x"], "Loss": ["train/loss$"]}
    )
    reward, loss = (axes for axes in drawn.axes if axes.lines)
    assert len({line.get_color() for line in reward.lines}) == 3
    assert [text.get_text() for text in reward.get_legend().get_texts()] == ["mean", "format", "correctness"]
    assert reward.get_title(loc="left") == "Reward · train/reward/"
    assert len(loss.lines) == 1
