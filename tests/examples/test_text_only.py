"""Three callbacks in a project without images, and what TensorBoard holds afterwards."""

import io
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_sal.callbacks import CollapseGuard


@pytest.fixture
def trained(project):
    """The trainer of a whole run, and its event files."""
    trainer = import_module("text_only").main(project / "runs")
    events = EventAccumulator(trainer.log_dir, size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return trainer, events


def test_it_learns_shows_words_and_is_watched(trained):
    trainer, events = trained
    rewards = [scalar.value for scalar in events.Scalars("rl/reward")]
    assert sum(rewards[:10]) / 10 < 0.5
    assert sum(rewards[-10:]) / 10 > 0.9

    assert events.Scalars("sft/loss")[0].step == 4  # the first after 4 RL steps

    pictures = events.Images("rollouts/sort")
    assert [picture.step for picture in pictures] == list(range(0, trainer.global_step, 50))
    drawn = [np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)).convert("L")) for picture in pictures]
    assert all((pixels < 64).any() for pixels in drawn)
    text = events.Tensors("rollouts/sort/text_summary")[-1].tensor_proto.string_val[0].decode()
    words = [line.split("**")[1].split(" ")[0] for line in text.splitlines() if line.startswith("**")]
    answers = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert sum(a == "".join(sorted(word)) for word, a in zip(words, answers, strict=True)) >= 6  # of 8

    (guard,) = (callback for callback in trainer.callbacks if isinstance(callback, CollapseGuard))
    watched = [value for _, value in guard.windows["rl/reward"]]
    # Lightning logs the reward of the last RL step at SFT steps too, every fifth one; the guard takes each once.
    sampled = [reward for step, reward in enumerate(rewards) if step % 5 != 4]
    assert watched == pytest.approx(sampled[-50:])
    assert trainer.global_step == len(rewards) == 300


def test_a_policy_that_unlearns_is_stopped(project, monkeypatch):
    example = import_module("text_only")

    def uphill(module):
        return torch.optim.Adam(module.parameters(), lr=3e-3, maximize=True)

    monkeypatch.setattr(example.Sorter, "configure_optimizers", uphill)
    assert example.main(project / "runs").global_step < 300
