"""Before and after a run, and the control beside it."""

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_sal.callbacks import BeforeAfter, InterleavedSFT
from lightning_sal.evaluation.comparison import paired_difference, read_arms, summary
from tests.modules.parts import cgpo, scenes, trained, trainer


def run(folder, callback=None):
    torch.set_num_threads(1)
    callbacks = [InterleavedSFT(rl_steps=1, sft_steps=1), *([callback] if callback else [])]
    module = cgpo()
    trainer(folder, max_steps=4, callbacks=callbacks).fit(module, datamodule=scenes())
    return trained(module)


def test_controls_leave_the_run_as_it_would_be_without_them(tmp_path, capsys):
    compared = run(tmp_path, BeforeAfter(tmp_path / "out", panels=2, control_steps=2, equal_time=True))
    plain = run(tmp_path)
    assert all(torch.equal(compared[name], weight) for name, weight in plain.items())
    arms = read_arms(tmp_path / "out" / "samples.jsonl")
    assert list(arms) == ["start", "SFT only, 2 steps", "CGPO", "SFT only, equal time"]
    assert {len(samples) for samples in arms.values()} == {7}
    assert (tmp_path / "out" / "gallery.png").is_file()
    printed = capsys.readouterr().out
    assert "SFT only, 2 steps" in printed
    assert str(tmp_path / "out" / "gallery.png") in printed


def test_an_earlier_gallery_is_not_overwritten(tmp_path):
    for _ in range(2):
        run(tmp_path, BeforeAfter(tmp_path / "out", panels=1))
    assert (tmp_path / "out_2" / "samples.jsonl").is_file()


def test_loggers_get_two_scalars_a_figure_and_a_table(tmp_path):
    logger = TensorBoardLogger(tmp_path / "log", name=None, version="")
    callbacks = [InterleavedSFT(rl_steps=1, sft_steps=1), BeforeAfter(tmp_path / "out", panels=1, control_steps=1)]
    trainer(tmp_path, max_steps=2, callbacks=callbacks, logger=logger).fit(cgpo(), datamodule=scenes())
    events = EventAccumulator(str(tmp_path / "log"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if name.startswith("before_after")]
    assert sorted(names) == ["before_after/correctness", "before_after/exact"]
    arms = read_arms(tmp_path / "out" / "samples.jsonl")
    for name in names:
        key = name.rpartition("/")[2]
        expected = [(0, summary(arms["start"])[key]), (2, summary(arms["CGPO"])[key])]
        assert [(each.step, each.value) for each in events.Scalars(name)] == [
            (step, pytest.approx(value)) for step, value in expected
        ]
    assert [image.step for image in events.Images("before_after")] == [2]
    (text,) = events.Tensors("before_after/text_summary")
    lines = text.tensor_proto.string_val[0].decode().split("\n")
    assert lines[0] == "|  | start | SFT only, 1 steps | CGPO |"
    difference, error = paired_difference([s.reward for s in arms["CGPO"]], [s.reward for s in arms["start"]])
    (reward,) = (line for line in lines if line.startswith("| reward |"))
    assert reward.endswith(f"({difference:+.3f} ± {error:.3f}) |")
