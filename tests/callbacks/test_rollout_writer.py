"""What a training that is not ours leaves in the files of rollouts, stopped and gone on with."""

import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_sal.callbacks.rollout_writer import RolloutWriter


def rollouts(step, keys):
    B = len(keys)
    return SimpleNamespace(
        groups=[SimpleNamespace(key=key, task="sod") for key in keys],
        rollout=SimpleNamespace(
            texts=[f"{step} “{key}”\u2028\n" for key in keys],
            mask=torch.arange(5) < torch.arange(1, B + 1)[:, None],
            truncated=torch.arange(B) == 1,
        ),
        rewards=SimpleNamespace(total=torch.arange(B) / 4, terms={"format": torch.full((B,), 0.5)}),
        confidence=torch.full((B,), 0.25, requires_grad=True),
        advantages=torch.arange(B) / 4 - 0.25,
    )


class Foreign(L.LightningModule):
    """`samples` says for each step the keys of what was sampled; None where nothing was."""

    def __init__(self, samples, stop_at=None):
        super().__init__()
        self.layer, self.samples, self.stop_at = nn.Linear(1, 1), samples, stop_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.stop_at:
            raise InterruptedError
        keys = self.samples[self.global_step]
        self.record = None if keys is None else rollouts(self.global_step, keys)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder, samples, *, stop_at=None, checkpoints=None, every=1, ckpt_path=None):
    saving = [ModelCheckpoint(checkpoints, "{step}", every_n_train_steps=1, save_top_k=-1)] if checkpoints else []
    trainer = L.Trainer(
        max_steps=len(samples), accelerator="cpu", logger=False, callbacks=[RolloutWriter(folder, every), *saving],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(saving),
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.ones(len(samples), 1))
    trainer.fit(Foreign(samples, stop_at), loader, ckpt_path=ckpt_path)


def read(path):
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_line_a_response(tmp_path):
    fit(tmp_path / "new" / "out", [("a", "b", "a"), None, ("c",)])
    (path,) = (tmp_path / "new" / "out").iterdir()
    lines = read(path)
    assert [(line["step"], line["key"], line["index"]) for line in lines] == [
        (0, "a", 0), (0, "b", 0), (0, "a", 1), (2, "c", 0),
    ]  # fmt: skip
    assert lines[1] == {
        "step": 0, "rank": 0, "task": "sod", "key": "b", "index": 0, "text": "0 “b”\u2028\n", "reward": 0.25,
        "terms": {"format": 0.5}, "confidence": 0.25, "advantage": 0.0, "tokens": 2, "truncated": True,
    }  # fmt: skip


def test_a_step_that_sampled_nothing_gives_way_to_the_next_one(tmp_path):
    fit(tmp_path, [None, "a", "a", None, None, "a", "a"], every=3)
    assert [line["step"] for line in read(tmp_path / "rollouts.jsonl")] == [1, 5, 6]


def test_rollouts_of_an_earlier_run_are_refused_and_left_alone(tmp_path):
    fit(tmp_path, ["a"])
    before = (tmp_path / "rollouts.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match=r"rollouts\.jsonl: rollouts of an earlier run"):
        fit(tmp_path, ["b"])
    assert (tmp_path / "rollouts.jsonl").read_bytes() == before


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_was_killed_and_goes_on_leaves_what_one_in_one_piece_does(tmp_path, every, capsys):
    samples = [("a", "a"), None, "b", ("c", "d"), "e", "f", None, "g"]
    fit(tmp_path / "whole", samples, every=every)
    part, file = tmp_path / "part", tmp_path / "part" / "rollouts.jsonl"
    with pytest.raises(InterruptedError):
        fit(part, samples, every=every, stop_at=6, checkpoints=tmp_path / "saved")
    lines = read(file)
    with file.open("a") as end:
        end.write('{"step": 6, "ra')  # as a kill leaves it
    (part / "rollouts-notes.jsonl").write_text("mine")
    fit(part, samples, every=every, checkpoints=tmp_path / "saved", ckpt_path=tmp_path / "saved" / "step=4.ckpt")
    assert file.read_bytes() == (tmp_path / "whole" / "rollouts.jsonl").read_bytes()
    again = sum(line["step"] >= 4 for line in lines) + 1
    assert f"{again} lines from step 4 on are dropped" in capsys.readouterr().out
    assert (part / "rollouts-notes.jsonl").read_text() == "mine"


def test_a_run_that_goes_on_elsewhere_begins_a_file(tmp_path):
    fit(tmp_path / "a", ["a", "b"], checkpoints=tmp_path / "saved")
    fit(tmp_path / "b", ["a", "b", "c"], ckpt_path=tmp_path / "saved" / "step=2.ckpt")
    assert [line["key"] for line in read(tmp_path / "b" / "rollouts.jsonl")] == ["c"]


def test_a_file_that_is_not_ours_stays_as_it_is(tmp_path):
    fit(tmp_path / "a", ["a", "b"], checkpoints=tmp_path / "saved")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "rollouts.jsonl").write_text('{"step": 0}\n{"prompt": 1}\n')
    with pytest.raises(ValueError, match=r"rollouts\.jsonl:2: not a line of RolloutWriter"):
        fit(tmp_path / "b", ["a", "b", "c"], ckpt_path=tmp_path / "saved" / "step=2.ckpt")
    assert (tmp_path / "b" / "rollouts.jsonl").read_text() == '{"step": 0}\n{"prompt": 1}\n'


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        RolloutWriter(tmp_path, every_n_steps=0)
