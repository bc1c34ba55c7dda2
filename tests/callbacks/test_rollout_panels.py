"""Panels on a module that is not ours: what TensorBoard holds afterwards."""

import io
from itertools import pairwise
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_sal.callbacks.rollout_panels import RolloutPanels

ANSWER = "<answer>{}</answer>\n"


def rollouts(tasks):
    mask = torch.zeros(1, 30, 30, dtype=torch.bool)
    groups = [
        SimpleNamespace(key=f"key{i}", task=task, images=(torch.zeros(30, 30, 3, dtype=torch.uint8),), masks=(mask,))
        for i, task in enumerate(tasks)
    ]
    return SimpleNamespace(
        groups=groups,
        rollout=SimpleNamespace(texts=[ANSWER.format(group.key) for group in groups]),
        responses=[SimpleNamespace(masks=(mask,)) for _ in groups],
        rewards=SimpleNamespace(
            total=torch.arange(len(groups)) / 8,
            reasons={"format": [None] * (len(groups) - 1) + ["no think block"]},
        ),
    )


class Foreign(L.LightningModule):
    """`samples` says for each step which tasks were sampled; None where nothing was."""

    def __init__(self, samples):
        super().__init__()
        self.layer, self.samples = nn.Linear(1, 1), samples

    def training_step(self, batch, batch_idx):
        tasks = self.samples[self.global_step]
        self.record = None if tasks is None else rollouts(tasks)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(callback, samples, folder, module=Foreign):
    logger = TensorBoardLogger(folder, name=None, version="")
    trainer = L.Trainer(
        max_steps=len(samples), accelerator="cpu", logger=logger, callbacks=[callback], log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module(samples), torch.utils.data.DataLoader(torch.ones(len(samples), 1)))
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def test_a_panel_and_a_text_a_task_at_the_steps_that_are_due(tmp_path):
    events = fit(RolloutPanels(every_n_steps=3), [("a", "b", "a")] * 7, tmp_path)
    assert set(events.Tags()["images"]) == {"rollouts/a", "rollouts/b"}
    assert [image.step for image in events.Images("rollouts/a")] == [0, 3, 6]
    pictures = [events.Images(f"rollouts/{task}")[0] for task in "ab"]
    heights = [Image.open(io.BytesIO(picture.encoded_image_string)).height for picture in pictures]
    assert heights[0] > 1.8 * heights[1]
    text = events.Tensors("rollouts/a/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "key0 · reward 0.000" in text
    assert "key2 · reward 0.250" in text
    assert "format: no think block" in text
    assert "    <answer>key2</answer>" in text


def test_maps_are_drawn_where_they_were_computed(tmp_path, monkeypatch):
    made = rollouts(("a", "a", "b", "c", "c"))
    peak = torch.full((3, 3), -1.0)
    peak[0, 2] = 0.25
    made.responses[0].maps, made.responses[0].answer = (
        ((peak,), (peak / 2,)),
        SimpleNamespace(labels_at=((8, 11), (11, 12))),
    )
    for row, maps in ((1, ()), (2, None), (3, ((torch.full((3, 3), torch.nan),),))):
        made.responses[row].maps = maps
    monkeypatch.setitem(fit.__globals__, "rollouts", lambda tasks: made)
    events = fit(RolloutPanels(), [("a",)], tmp_path)
    assert set(events.Tags()["images"]) == {"rollouts/a", "rollouts/b", "rollouts/c", "maps/a", "maps/c"}
    pixels = {
        task: np.asarray(Image.open(io.BytesIO(events.Images(f"maps/{task}")[0].encoded_image_string))).astype(int)
        for task in "ac"
    }
    yellow = pixels["a"][..., 0] - pixels["a"][..., 2] > 60
    top = yellow[: 30 + 176]  # the title, and the row of the first response
    columns = np.nonzero(top.any(0))[0]
    assert columns.min() > 8 + 176 / 2, "the peak is at the right of the image"
    assert columns.max() < 8 + 176, "half of it, of the second label, is not yellow"
    assert not (pixels["c"][..., 0] - pixels["c"][..., 2] > 60).any()


def test_of_several_responses_to_a_prompt_the_first_of_each_come_first(tmp_path, monkeypatch):
    made = rollouts(("a",) * 6)
    for row, group in enumerate(made.groups):
        group.key = f"prompt{row // 3}"
    monkeypatch.setitem(fit.__globals__, "rollouts", lambda tasks: made)
    events = fit(RolloutPanels(max_groups=3), [("a",) * 6], tmp_path)
    text = events.Tensors("rollouts/a/text_summary")[0].tensor_proto.string_val[0].decode()
    headlines = [line for line in text.splitlines() if "reward" in line]
    assert headlines == [f"**prompt{n} · reward {reward}**" for n, reward in ((0, "0.000"), (1, "0.375"), (0, "0.125"))]


def test_a_long_response_is_shown_whole(tmp_path, monkeypatch):
    response = "<think>" + "word " * 60 + "</think><answer>" + "x" * 130 + "</answer>"
    monkeypatch.setitem(rollouts.__globals__, "ANSWER", response)
    events = fit(RolloutPanels(), [("a",)], tmp_path)
    text = events.Tensors("rollouts/a/text_summary")[0].tensor_proto.string_val[0].decode()
    block = text.partition("\n\n    ")[2]
    assert max(len(line) for line in block.splitlines()) <= 114
    assert "</think>\n    <answer>x" in block
    assert "".join(block.split()) == "".join(response.split())


def test_a_step_that_sampled_nothing_gives_way_to_the_next_one(tmp_path):
    events = fit(RolloutPanels(every_n_steps=3), [None, ("a",), ("a",), None, None, ("a",), None], tmp_path)
    assert [image.step for image in events.Images("rollouts/a")] == [1, 5]


def test_no_more_groups_than_asked_for(tmp_path):
    events = fit(RolloutPanels(max_groups=2), [("a",) * 5], tmp_path)
    text = events.Tensors("rollouts/a/text_summary")[0].tensor_proto.string_val[0].decode()
    assert [f"key{i}" in text for i in range(3)] == [True, True, False]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        RolloutPanels(every_n_steps=0)


def test_a_project_without_images_shows_its_words(tmp_path):
    class TextOnly(Foreign):
        def training_step(self, batch, batch_idx):
            self.record = SimpleNamespace(
                groups=[SimpleNamespace(key=f"question {i}", task="words") for i in range(3)],
                rollout=SimpleNamespace(texts=["one", "two", "three " * 60]),
                rewards=SimpleNamespace(total=torch.tensor([0.0, 0.5, 1.0])),
            )
            return self.layer(batch).sum()

    events = fit(RolloutPanels(max_groups=3), [None], tmp_path, TextOnly)
    (picture,) = events.Images("rollouts/words")
    pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)).convert("L"))
    assert pixels.shape[1] < 400  # no columns for images
    rows = (pixels < 100).any(1)
    assert sum(now and not before for before, now in pairwise(rows)) > 3 + 3 + 4  # lines: titles, heads, words
    text = events.Tensors("rollouts/words/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "**question 1 · reward 0.500**" in text
    assert "    two" in text
