"""What the progress bar shows, on a terminal and in a file."""

import lightning as L
import torch
from torch import nn

from lightning_sal.callbacks.progress import RolloutProgressBar
from lightning_sal.samples import Phased


class Foreign(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        phase, data = batch if isinstance(batch, Phased) else ("rl", batch)
        self.log("train/loss", 0.5, prog_bar=True)
        self.log("train/other", 3.0, prog_bar=True)
        if phase == "rl":
            self.log("train/reward", self.global_step / 10, prog_bar=True)
        return self.layer(data).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Batches:
    def __init__(self, phases):
        self.phases = phases

    def __len__(self):
        return len(self.phases)

    def __iter__(self):
        for phase in self.phases:
            yield Phased(phase, torch.ones(1, 1)) if phase else torch.ones(1, 1)


def fit(bar, phases):
    trainer = L.Trainer(
        max_steps=len(phases), accelerator="cpu", logger=False, callbacks=[bar], enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(Foreign(), Batches(phases))
    return trainer


def test_without_a_terminal_a_line_every_few_steps(capsys):
    fit(RolloutProgressBar(log_every=2), ["rl", "rl", "rl", "sft", "sft"])
    lines = [line.rsplit(" | ", 1)[0] for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert lines == [
        "step 1/5 | rl | reward 0.000 | loss 0.500 | other 3.000",
        "step 2/5 | rl | reward 0.100 | loss 0.500 | other 3.000",
        "step 4/5 | sft | reward 0.200 | loss 0.500 | other 3.000",
        "step 5/5 | sft | reward 0.200 | loss 0.500 | other 3.000",
    ]


def test_a_module_without_phases_shows_none_and_lines_can_be_left_out(capsys):
    fit(RolloutProgressBar(log_every=1), [None])
    assert "step 1/1 | reward 0.000 | loss" in capsys.readouterr().out
    fit(RolloutProgressBar(log_every=0), [None])
    assert "step" not in capsys.readouterr().out
