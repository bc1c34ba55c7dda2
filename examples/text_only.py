"""Three callbacks of lightning-sal in a project that has no images: a language model learns to sort letters.

    python examples/text_only.py            # about 20 s on one core; needs lightning and lightning-sal alone
    tensorboard --logdir runs               # Scalars, Text and Images

A GRU is asked `dbca>` and must answer `abcd`. It sees 8 right answers (SFT), and is told of all others only how many of
their letters stand at the right place (REINFORCE). What it takes to use the callbacks is marked by (1), (2) and (3).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_sal.callbacks import CollapseGuard, InterleavedSFT, RolloutPanels

LETTERS, LENGTH = "abcdef", 4
VOCABULARY = {letter: number for number, letter in enumerate(LETTERS + ">")}


def tokens(texts: list[str]) -> Tensor:
    """(B, T) token ids of B texts of T letters."""
    return torch.tensor([[VOCABULARY[letter] for letter in text] for text in texts])


class Words(L.LightningDataModule):
    """Words of different letters: many to practise on, and a few with their answers."""

    def setup(self, stage: str) -> None:
        draw = random.Random(0)
        self.words: Any = ["".join(draw.sample(LETTERS, LENGTH)) for _ in range(6400)]

    def train_dataloader(self) -> dict[str, DataLoader]:
        # (1) InterleavedSFT takes two loaders, "rl" and "sft", and hands out the batch of the one whose turn it is.
        annotated: Any = [(word, "".join(sorted(word))) for word in self.words[:8]]
        return {"rl": DataLoader(self.words, batch_size=64), "sft": DataLoader(annotated, batch_size=8)}


class Sorter(L.LightningModule):
    """A GRU that reads a word and writes another one, letter by letter."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), 64)
        self.gru = nn.GRU(64, 128, batch_first=True)
        self.head = nn.Linear(128, len(LETTERS))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)

    def training_step(self, batch: tuple[str, list], batch_idx: int) -> Tensor:
        phase, data = batch  # (1) what InterleavedSFT hands out
        return self.sft_step(*data) if phase == "sft" else self.rl_step(data)

    def sft_step(self, words: list[str], answers: list[str]) -> Tensor:
        self.record = None  # (2) nothing was sampled
        asked, answered = tokens([f"{word}>" for word in words]), tokens(answers)
        hidden, _ = self.gru(self.embedding(torch.cat([asked, answered[:, :-1]], dim=1)))
        loss = cross_entropy(self.head(hidden[:, LENGTH:]).flatten(0, 1), answered.flatten())
        self.log("sft/loss", loss)
        return loss

    def rl_step(self, words: list[str]) -> Tensor:
        answers, logp, entropy = self.sample(words)
        texts = ["".join(LETTERS[number] for number in row) for row in answers.tolist()]
        right = tokens(["".join(sorted(word)) for word in words])
        reward = (answers == right).float().mean(1)
        loss = -((reward - reward.mean()) * logp).mean()  # REINFORCE, with the mean reward of the batch as baseline
        # (2) RolloutPanels draws what was asked, what was answered, and what that was worth.
        self.record = SimpleNamespace(
            groups=[SimpleNamespace(task="sort", key=word) for word in words],
            rollout=SimpleNamespace(texts=texts),
            rewards=SimpleNamespace(total=reward),
        )
        # (3) CollapseGuard watches scalars by the names under which they are logged.
        self.log_dict({"rl/reward": reward.mean(), "rl/entropy": entropy}, prog_bar=True)
        return loss

    def sample(self, words: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T) sampled answers, their (B,) log-probabilities in nats, and the mean entropy of a letter."""
        given, state, drawn, logp, entropy = tokens([f"{word}>" for word in words]), None, [], [], []
        for _ in range(LENGTH):
            hidden, state = self.gru(self.embedding(given), state)
            letter = Categorical(logits=self.head(hidden[:, -1]))
            drawn.append(letter.sample())
            logp.append(letter.log_prob(drawn[-1]))
            entropy.append(letter.entropy().mean())
            given = drawn[-1][:, None]
        return torch.stack(drawn, dim=1), torch.stack(logp).sum(0), torch.stack(entropy).mean()


def main(folder: Path, steps: int = 300) -> L.Trainer:
    """Train, and leave TensorBoard's files in a folder."""
    L.seed_everything(0)
    callbacks = [
        InterleavedSFT(rl_steps=4, sft_steps=1),
        RolloutPanels(every_n_steps=50, max_groups=8),
        CollapseGuard({"rl/reward": (0.1, None)}, window=50),  # an answer by chance is worth 1/6
    ]
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=callbacks,
        logger=TensorBoardLogger(folder, name=None),
        log_every_n_steps=1,
        enable_checkpointing=False,
    )
    trainer.fit(Sorter(), datamodule=Words())
    return trainer


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/text_only"))
